"""Pushing an export: what reaches a local stand-in of the hub, and one line for everything that may go wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM

from hub_server import Hub
from lightning_mem1.cli import export
from lightning_mem1.policy.policy import LoraSettings

ROOT = Path(__file__).parents[2]
TOKEN = "hf_" + "x" * 34
IDS = torch.tensor([[5, 6, 7, 8, 9, 200, 31]])


@pytest.fixture
def hub():
    with Hub() as standing:
        yield standing


def trained(make_module, path="last.ckpt", **overrides) -> torch.Tensor:
    """Write a checkpoint; return the logits of its policy."""
    module, checkpoint = make_module(**overrides).eval(), {}
    torch.manual_seed(1)
    for parameter in module.policy.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    module.on_save_checkpoint(checkpoint)
    checkpoint["hyper_parameters"] = dict(module.hparams)
    torch.save(checkpoint, path)
    with torch.no_grad():
        return module.policy.model(IDS).logits


def pushed(*arguments: str, endpoint: str, token: str | None = TOKEN, **environment: str):
    """Export in a process of its own: the hub's client reads its environment when it is imported."""
    kept = {key: value for key, value in os.environ.items() if key not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    given = {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT), **environment}
    if token:
        given["HF_TOKEN"] = token
    command = [sys.executable, "-W", "ignore", "-m", "lightning_mem1", "export", "--ckpt_path=last.ckpt", *arguments]
    return subprocess.run(command, env=kept | given, capture_output=True, text=True)


def test_a_merged_policy_is_pushed_and_loads_from_what_arrived(hub, make_module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = trained(make_module)
    done = pushed("--output=out", "--merged", "--push_to_hub=lab/shopper", "--private", "--commit_message=First",
                  endpoint=hub.endpoint)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"pushed to {hub.endpoint}/lab/shopper"
    assert hub.repositories == {"lab/shopper": True} and hub.messages == ["First"]
    assert hub.tokens == {f"Bearer {TOKEN}"} and TOKEN not in done.stdout
    assert {path.rpartition("/")[2] for path in hub.files} == {path.name for path in Path("out").iterdir()}
    for path, content in hub.files.items():
        arrived = tmp_path / "arrived" / path
        arrived.parent.mkdir(parents=True, exist_ok=True)
        arrived.write_bytes(content)
    folder = tmp_path / "arrived" / "lab" / "shopper"
    card = ModelCard.load(folder / "README.md")
    assert 'AutoModelForCausalLM.from_pretrained("lab/shopper")' in card.content
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder).eval()(IDS).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_an_existing_repository_takes_a_commit_by_force_alone_and_loses_what_the_new_export_lacks(
    hub, make_module, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    trained(make_module)
    hub.repositories["lab/shopper"] = None
    hub.files |= {"lab/shopper/adapter_config.json": b"{}", "lab/shopper/notes.md": b"mine"}
    done = pushed("--output=out", "--merged", "--push_to_hub=lab/shopper", endpoint=hub.endpoint)
    assert done.stderr == (
        "error: cannot push to 'lab/shopper': the repository exists (409); choose another name, or give --force to "
        "commit to it; the export is in 'out'\n"
    )
    Path("out/notes.txt").write_text("of this machine")
    done = pushed("--output=out", "--merged", "--push_to_hub=lab/shopper", "--force", endpoint=hub.endpoint)
    assert (done.returncode, done.stderr) == (0, "")
    names = {path.removeprefix("lab/shopper/") for path in hub.files}
    assert {"model.safetensors", "notes.md"} <= names and not {"adapter_config.json", "notes.txt"} & names


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "the hub does not know the token (401); set HF_TOKEN to a valid one"),
        (403, "the token may not write there (403); set HF_TOKEN to one with write access to that organisation"),
        (400, "the hub answered 400 ("),
    ],
)
def test_a_refusal_of_the_hub_is_one_line(hub, status, message, tmp_path):
    hub.refuse = status
    line = failure(tmp_path, hub.endpoint)
    assert line.startswith(f"cannot push to 'lab/shopper': {message}")
    assert line.endswith("; the export is in '.'") and TOKEN not in line


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path):
    line = failure(tmp_path, "http://127.0.0.1:9")
    assert line.startswith("cannot push to 'lab/shopper': the hub cannot be reached (ConnectError: ")
    assert "check the network and HF_ENDPOINT" in line


def failure(folder: Path, endpoint: str) -> str:
    """What `hub.push` raises, in a process that imports nothing else."""
    script = (
        "import sys; from argparse import Namespace; from pathlib import Path; from lightning_mem1.cli import hub\n"
        "given = Namespace(push_to_hub='lab/shopper', private=False, commit_message='x')\n"
        "try: hub.push(Path('.'), ['*.json'], given, False)\n"
        "except ValueError as error: print(error)\n"
    )
    kept = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    given = {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=kept | given, cwd=folder, capture_output=True, text=True, check=True
    )
    (line,) = done.stdout.splitlines()
    return line


@pytest.mark.parametrize(
    ("environment", "arguments", "message"),
    [
        ({}, ["--push_to_hub=lab/shopper"], "no token for the hub: expected HF_TOKEN in the environment, got none; "),
        (
            {"HF_TOKEN": TOKEN},
            ["--push_to_hub=shopper"],
            "not a repository of the hub: expected ORG/NAME, got 'shopper'",
        ),
        (
            {"HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "1"},
            ["--push_to_hub=lab/shopper"],
            "cannot push to 'lab/shopper': the hub is switched off by HF_HUB_OFFLINE; unset it",
        ),
        ({}, ["--private"], "--private has no effect: expected --push_to_hub ORG/NAME next to it, got none"),
        ({}, ["--commit_message=x"], "--commit_message has no effect: expected --push_to_hub ORG/NAME next to it"),
    ],
)
def test_a_push_that_cannot_work_is_refused_before_anything_is_loaded(
    environment, arguments, message, config, make_module, monkeypatch, capsys
):
    trained(make_module)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for start in (["--ckpt_path=last.ckpt"], [config, "--ckpt_path=last.ckpt"]):
        capsys.readouterr()
        assert export.main([*start, "--output=out", *arguments]) == 1
        assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not Path("out").exists()


def test_an_adapter_on_a_folder_of_this_machine_is_not_pushed(make_module, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    trained(make_module, lora=LoraSettings(r=2))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    assert export.main(["--ckpt_path=last.ckpt", "--output=out", "--push_to_hub=lab/shopper"]) == 1
    assert "cannot push an adapter on a folder of this machine: expected a base of the hub" in capsys.readouterr().err
    assert not Path("out").exists()
