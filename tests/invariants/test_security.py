"""Secrets stay out of what is written, names cannot lead out of their folder, hostile files are refused."""

import ast
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from lightning_mem1.cli import fit as command
from lightning_mem1.cli.lightning_cli import checked_name
from lightning_mem1.context.tags import Tags, escape_tags
from lightning_mem1.io.redaction import redacted, redacted_settings

KEY, PASSWORD = "k3y-0123456789", "pa55-0123456789"


def test_a_password_in_an_address_is_taken_out():
    assert (
        redacted("at http://me:pa55@host:80/x?y=1, or http://host/a@b")
        == "at http://***@host:80/x?y=1, or http://host/a@b"
    )
    assert redacted("sqlite:///mlflow.db") == "sqlite:///mlflow.db"


def test_the_value_of_a_key_of_the_environment_is_taken_out_and_short_values_are_not(monkeypatch):
    monkeypatch.setenv("SERPER_API_KEY", KEY)
    monkeypatch.setenv("ANOTHER_TOKEN", "yes")
    monkeypatch.setenv("MONKEY", "0123456789")
    assert redacted(f"refused {KEY}, yes, 0123456789") == "refused ***, yes, 0123456789"


def test_settings_are_taken_out_by_name_and_by_value():
    settings = {
        "api_key": "a",
        "init_args": {"password": "b", "hub_token": "c", "client_secret": "d"},
        "max_tokens": 3,
        "loss_unit": "token",
        "num_tokens": "many",
        "urls": ["http://me:pa55@host"],
        "key": "kept",
        "empty_password": "",
        "secret": None,
    }
    assert redacted_settings(settings) == {
        "api_key": "***",
        "init_args": {"password": "***", "hub_token": "***", "client_secret": "***"},
        "max_tokens": 3,
        "loss_unit": "token",
        "num_tokens": "many",
        "urls": ["http://***@host"],
        "key": "kept",
        "empty_password": "",
        "secret": None,
    }
    assert redacted_settings("x", "data.init_args.api_key") == "***"


def test_a_run_leaves_no_key_and_no_password_anywhere(config, mlflow_uri, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TINY_API_KEY", KEY)
    content = yaml.safe_load(Path(config).read_text())
    content["data"]["init_args"]["source"] = {
        "class_path": "tiny_tasks.KeyedTasks",
        "init_args": {"api_key": "${oc.env:TINY_API_KEY}", "address": f"http://me:{PASSWORD}@host/"},
    }
    Path(config).write_text(yaml.safe_dump(content))
    written_here = {path for path in tmp_path.rglob("*") if path.is_file()}
    options = ["--tracking_uri", mlflow_uri, "--data.num_rl_steps=1", "--experiment=keys"]
    assert command.main([config, *options]) == 0
    store = Path(mlflow_uri.removeprefix("sqlite:///"))
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path not in written_here]
    assert any(path.name == "config.yaml" for path in files)
    for path in [*files, store]:
        found = path.read_bytes()
        assert KEY.encode() not in found and PASSWORD.encode() not in found, path
    told = "".join(capsys.readouterr())
    assert KEY not in told and PASSWORD not in told


def test_an_error_line_holds_no_key(config, capsys, monkeypatch):
    monkeypatch.setenv("TINY_API_KEY", KEY)
    assert command.main([config, f"--ckpt_path={KEY}.ckpt", "--trainer.logger=false"]) == 1
    assert capsys.readouterr().err == "error: no such checkpoint: expected a file, got '***.ckpt'; set --ckpt_path\n"


@pytest.mark.parametrize("name", ["../out", "a/b", "/tmp/x", "..", ".hidden", "", "a\x00b", "a\nb", "c:\\d"])
def test_the_name_of_an_experiment_cannot_lead_out_of_its_folder(name):
    with pytest.raises(ValueError, match="not a name for an experiment: expected letters"):
        checked_name(name)


def test_ordinary_names_of_experiments_pass():
    assert [checked_name(name) for name in ("webshop", "qa_qwen2.5-7b", "Shop 2 +x")]


@pytest.mark.parametrize("name", ["last.ckpt", "optimizer_states"])
def test_a_checkpoint_whose_parts_would_run_code_is_refused_before_any_of_it_runs(config, capsys, tmp_path, name):
    class Runs:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "made"),))

    content = {"lightning_mem1": {"rl_step": 1}, "state_dict": {}, name: [Runs()]}
    torch.save(content, tmp_path / "bad.ckpt")
    for arguments in ([f"--ckpt_path={tmp_path / 'bad.ckpt'}"], ["--ckpt_path=last"]):
        place = Path("runs/tiny/0/checkpoints")
        place.mkdir(parents=True, exist_ok=True)
        (place / "last.ckpt").write_bytes((tmp_path / "bad.ckpt").read_bytes())
        assert command.main([config, *arguments, "--trainer.logger=false"]) == 1
        assert (
            capsys.readouterr().err.splitlines()[-1].startswith("error: corrupt checkpoint: expected a complete file")
        )
    assert not (tmp_path / "made").exists()


def test_a_policy_folder_with_pickled_weights_only_is_refused(config, capsys, tiny_folder, tmp_path):
    folder = tmp_path / "pickled"
    folder.mkdir()
    for path in tiny_folder.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    torch.save({"weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    assert command.main([config, f"--model.policy={folder}", "--trainer.logger=false"]) == 1
    assert "safetensors" in capsys.readouterr().err


def test_a_model_that_brings_code_of_its_own_is_refused_without_a_question(config, capsys, tiny_folder, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(tiny_folder, folder)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    content = json.loads((folder / "config.json").read_text())
    content |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(content))
    assert command.main([config, f"--model.policy={folder}", "--trainer.logger=false"]) == 1
    assert capsys.readouterr().err.endswith(
        f"error: policy '{folder}' needs code of its own: expected an architecture that transformers knows, got one "
        "whose code is in its folder, which is never run; use another model\n"
    )
    assert not (tmp_path / "ran").exists()


def test_no_loader_of_a_model_may_ask_whether_to_run_its_code():
    """Left out, `trust_remote_code` asks on the terminal."""
    for path in (Path(__file__).parents[2] / "lightning_mem1").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
            if name.startswith(("Auto", "kind.")) and name.endswith(".from_pretrained"):
                assert "trust_remote_code=False" in ast.unparse(call), f"{path}: {ast.unparse(call)}"


def test_a_page_of_spaces_behind_a_bracket_is_read_in_one_pass():
    """Two ways to read a run of spaces would take the square of its length: hours for this page."""
    page = "<" + " " * 2_000_000 + "x"
    assert escape_tags(page, Tags()) == page
    assert escape_tags("<" + " " * 1000 + "/ answer >", Tags())[0] == "‹"
