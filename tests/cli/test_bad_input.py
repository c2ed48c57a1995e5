"""Every mistake of a user is one clear line on stderr, a non-zero exit, and nothing lost."""

import difflib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lightning_mem1.checks import MOVED
from lightning_mem1.cli import errors, evaluate, export, play, serve
from lightning_mem1.cli import fit as command

pytestmark = pytest.mark.usefixtures("config")


def failure(capsys, *arguments: str) -> str:
    """Run, expect a failure, return its one line."""
    assert command.main([*arguments, "--trainer.logger=false"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


def edit(path: str, *keys: str, value) -> None:
    content = yaml.safe_load(Path(path).read_text())
    place = content
    for key in keys[:-1]:
        place = place.setdefault(key, {})
    place[keys[-1]] = value
    Path(path).write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model.lrr=3", "unknown key 'model.lrr' in the command line; did you mean 'model.lr'?"),
        ("--modl.lr=3", "unknown key 'modl.lr' in the command line; did you mean 'model.lr'?"),
        (
            "--model.rollout.temprature=2",
            "unknown key 'model.rollout.temprature' in the command line; did you mean 'model.rollout.temperature'?",
        ),
        ("--data.group_sise=3", "unknown key 'data.group_sise' in the command line; did you mean 'data.group_size'?"),
        (
            "--trainer.max_epoch=3",
            "unknown key 'trainer.max_epoch' in the command line; did you mean 'trainer.max_epochs'?",
        ),
        ("--model.lr=fast", "wrong value for 'model.lr' in the command line: expected float, got 'fast'"),
        ("--data.group_size=x", "wrong value for 'data.group_size' in the command line: expected int, got 'x'"),
        (
            "--model.loss_unit=word",
            "wrong value for 'model.loss_unit' in the command line: "
            "expected one of 'token', 'turn', 'trajectory', got 'word'",
        ),
    ],
)
def test_a_wrong_option_is_named_with_the_nearest_right_one(config, capsys, option, message):
    assert failure(capsys, config, option) == message


def test_a_precision_of_updates_alone_is_refused(config, capsys):
    assert failure(capsys, config, "--trainer.precision=bf16-mixed") == (
        "trainer.precision is not for rollouts, which would stay in the base's dtype: expected 32-true, got "
        "bf16-mixed; leave it out and set model.compute.dtype, such as bfloat16"
    )


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (
            ("model", "memry"),
            "mem1",
            "unknown key 'model.memry' in '{config}', line {line}; did you mean 'model.memory'?",
        ),
        (("model", "lora", "rank"), 4, "unknown key 'model.lora.rank' in '{config}', line {line}"),
        (
            ("data", "init_args", "group_sise"),
            3,
            "unknown key 'data.group_sise' in '{config}', line {line}; did you mean 'data.group_size'?",
        ),
        (
            ("trainr",),
            {"max_epochs": 3},
            "unknown key 'trainr' in '{config}', line {line}; did you mean 'trainer'?",
        ),
        (
            ("warmstart",),
            {"output": "policy"},
            "unknown key 'warmstart' in '{config}', line {line}; expected some of seed_everything, trainer, model, "
            "data, ckpt_path, experiment, tracking_uri",
        ),
        (
            ("model", "engine", "num_slots"),
            "many",
            "wrong value for 'model.engine.num_slots' in '{config}', line {line}: expected int, got 'many'",
        ),
    ],
)
def test_a_wrong_key_of_a_config_is_named_with_its_line(config, capsys, keys, value, message):
    edit(config, *keys, value=value)
    line = next(n for n, text in enumerate(Path(config).read_text().splitlines(), 1) if keys[-1] in text)
    assert failure(capsys, config).startswith(message.format(config=config, line=line))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.beta", "0.1"], "model.beta is now model.loss.kl_coef: rename it in the command line"),
        (["--model.optimizer=adamw_8bit"], "model.optimizer is now model.optim.name: rename it in the command line"),
        (
            ["--model.num_epochs=2", "--model.dtype", "bfloat16"],
            "model.num_epochs is now model.optim.num_epochs, model.dtype is now model.compute.dtype: rename them "
            "in the command line",
        ),
    ],
)
def test_an_option_of_an_earlier_version_is_answered_with_its_present_name(config, capsys, options, message):
    assert failure(capsys, config, *options) == message


def test_all_moved_keys_of_a_config_are_answered_at_once_with_their_present_names(config, capsys):
    for name in MOVED:
        edit(config, *name.split("."), value=None)
    message = failure(capsys, config)
    assert all(f"{name} is now {MOVED[name]}" in message for name in MOVED)
    assert message.count("tiny.yaml', line") == len(MOVED)


@pytest.mark.parametrize("main", [evaluate.main, play.main, export.main, serve.main])
def test_every_command_answers_a_moved_key_with_its_present_name(config, capsys, main):
    edit(config, "model", "epsilon_high", value=0.3)
    edit(config, "model", "scale_rewards", value="none")
    assert main([config]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    start = (
        "error: model.epsilon_high is now model.loss.clip_high, model.scale_rewards is now model.credit.scale: rename"
    )
    assert line.startswith(start) and line.count("tiny.yaml', line") == 2


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "--model.optim.name=sgd",
            "wrong value for 'model.optim.name' in the command line: "
            "expected one of 'adamw', 'adamw_8bit', 'paged_adamw', 'paged_adamw_8bit', got 'sgd'",
        ),
        (
            "--model.loss.kl_estimator=k9",
            "wrong value for 'model.loss.kl_estimator' in the command line: "
            "expected one of 'k1', 'k2', 'k3' or null, got 'k9'",
        ),
        (
            "--model.loss.clip=much",
            "wrong value for 'model.loss.clip' in the command line: expected float or null, got 'much'",
        ),
        (
            "--model.mismatch.correction=tsi",
            "wrong value for 'model.mismatch.correction' in the command line: "
            "expected one of 'none', 'tis', 'mis', got 'tsi'",
        ),
        (
            "--model.compute.kernels=cutlass",
            "wrong value for 'model.compute.kernels' in the command line: "
            "expected one of 'torch', 'liger', got 'cutlass'",
        ),
        (
            "--model.optim.warmup_step=3",
            "unknown key 'model.optim.warmup_step' in the command line; did you mean 'model.optim.warmup_steps'?",
        ),
    ],
)
def test_a_wrong_value_of_a_group_says_what_was_expected_and_what_came(config, capsys, option, message):
    assert failure(capsys, config, option) == message


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "--model.memory=mem2",
            "unknown memory mode: expected one of mem1, full, window, none, summary, amem, compaction, masked, ",
        ),
        (
            "--model.layout=bush",
            "unknown layout: expected one of tree, rows, stitched, official, got 'bush'; set model.layout",
        ),
        ("--model.algorithm=ppo2", "unknown algorithm: expected one of grpo, "),
        (
            "--model.compute.dtype=int3",
            "wrong value for 'model.compute.dtype' in the command line: expected one of 'float32', 'bfloat16', 'float1",
        ),
        ("--model.policy=./nowhere", "no such policy: expected 'bundled', a folder or a hub id"),
        (
            "--data.tasks_per_step=0",
            "data.tasks_per_step too small: expected at least 1, got 0; set data.tasks_per_step",
        ),
        (
            "--data.init_args.source.class_path=tiny_tasks.NoTasks",
            "no train tasks: expected at least 1 from NoTasks, got 0",
        ),
        (
            "--data.init_args.source.class_path=tiny_tasks.RankedEnv",
            "class 'tiny_tasks.RankedEnv' in the command line is no TaskSource: method 'env' is missing; ",
        ),
        ("--data.num_rl_steps=0", "data.num_rl_steps too small: expected at least 1, got 0; set data.num_rl_steps"),
        ("--model.engine.num_slots=0", "model.engine.num_slots too small: expected at least 1, got 0"),
        ("--trainer.accelerator=mps", "trainer.accelerator cannot be used: expected auto, cpu or cuda, got 'mps'"),
        ("--ckpt_path=nothing.ckpt", "no such checkpoint: expected a file, got 'nothing.ckpt'; set --ckpt_path"),
        ("--ckpt_path=last", "no checkpoint to resume from: expected one under 'runs/tiny', got none"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(config, capsys, option, message):
    assert failure(capsys, config, option).startswith(message)


def test_a_mistake_of_a_config_is_not_blamed_on_an_option_with_the_same_letters(config, capsys):
    edit(config, "model", "lora", "r", value="many")
    line = next(n for n, text in enumerate(Path(config).read_text().splitlines(), 1) if "r: many" in text)
    said = failure(capsys, config, "--trainer.log_every_n_steps=2", "--model.rollout.temperature", "0.9")
    assert said.startswith(f"wrong value for 'model.lora.r' in '{config}', line {line}")


def test_a_mistake_inside_a_group_given_as_one_option_is_the_command_lines(config, capsys):
    said = failure(capsys, config, '--model.lora={"rank": 4}')
    assert said.startswith("unknown key 'model.lora.rank' in the command line")


def test_a_missing_config_is_named_with_the_nearest_one(config, capsys):
    wrong = config.replace("tiny.yaml", "tinny.yaml")
    assert failure(capsys, wrong) == (
        f"no such config: expected a YAML file or the name of an experiment, got '{wrong}'; did you mean '{config}'?"
    )


def test_no_config_at_all_says_what_to_type(capsys):
    assert failure(capsys) == (
        "no config: expected a YAML file or the name of an experiment, e.g. webshop; mem1 experiments lists them"
    )


def test_a_config_that_is_not_yaml_is_named_with_line_and_column(config, capsys):
    Path(config).write_text("model:\n  lr: [1\ndata: 3\n")
    line = failure(capsys, config)
    assert line.startswith("config is not YAML: ") and line.endswith("at line 3, column 5; repair the file")


def test_a_config_without_keys_is_refused(config, capsys):
    Path(config).write_text("- 1\n")
    assert failure(capsys, config) == f"config must hold keys like model, data and trainer, got a list in '{config}'"


def test_a_missing_catalogue_is_one_line(config, capsys):
    edit(config, "data", value={"class_path": "WebShopData"})
    assert "nowhere" in failure(capsys, config, "--data.catalogue=nowhere")


def test_untidy_listings_of_official_files_are_refused(config, capsys):
    edit(config, "data", value={"class_path": "WebShopData"})
    assert failure(capsys, config, "--data.catalogue=files", "--data.marketplace=true") == (
        "marketplace restyles the generated catalogue, got the files of files: drop data.marketplace or data.catalogue"
    )


def test_an_empty_catalogue_is_one_line(config, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    edit(config, "data", value={"class_path": "WebShopData"})
    assert "empty" in failure(capsys, config, f"--data.catalogue={tmp_path / 'empty'}")


def test_a_malformed_product_is_one_line(config, capsys, tmp_path):
    folder = tmp_path / "catalogue"
    folder.mkdir()
    (folder / "items_shuffle.json").write_text('[{"asin": "B000000001"}]')
    (folder / "items_ins_v2.json").write_text("{}")
    edit(config, "data", value={"class_path": "WebShopData"})
    assert failure(capsys, config, f"--data.catalogue={folder}") == (
        f"malformed product in {folder / 'items_shuffle.json'}, entry 0: expected name as a text, got None "
        "(1 of 1 entries are malformed): repair the file or set data.skip_malformed true"
    )


def test_a_hub_id_without_network_is_one_line(config, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    line = failure(capsys, config, "--model.policy=nobody/nothing")
    assert line.startswith(
        "cannot load policy 'nobody/nothing' from the hub: expected a reachable hub or a cached copy"
    )


def test_a_truncated_safetensors_file_is_one_line(config, capsys, tiny_folder, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in tiny_folder.iterdir():
        (broken / path.name).write_bytes(path.read_bytes()[: -1000 if path.suffix == ".safetensors" else None])
    assert failure(capsys, config, f"--model.policy={broken}").startswith(
        f"cannot load policy from '{broken}': expected"
    )


def test_a_corrupt_checkpoint_is_one_line_and_stays_as_it_is(config, capsys, tmp_path):
    path = tmp_path / "half.ckpt"
    torch.save({"lightning_mem1": {}, "state_dict": {"x": torch.zeros(1000)}}, path)
    half = path.read_bytes()[:2000]
    path.write_bytes(half)
    assert failure(capsys, config, f"--ckpt_path={path}").startswith("corrupt checkpoint: expected a complete file")
    assert path.read_bytes() == half


def test_a_checkpoint_that_would_run_code_is_refused(config, capsys, tmp_path):
    class Runs:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "made"),))

    torch.save({"lightning_mem1": Runs()}, tmp_path / "bad.ckpt")
    assert failure(capsys, config, f"--ckpt_path={tmp_path / 'bad.ckpt'}").startswith("corrupt checkpoint")
    assert not (tmp_path / "made").exists()


def test_a_checkpoint_of_something_else_is_refused(config, capsys, tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    assert failure(capsys, config, f"--ckpt_path={tmp_path / 'other.ckpt'}").startswith(
        "not a checkpoint of lightning_mem1"
    )


def test_debug_shows_the_traceback(config):
    with pytest.raises(ValueError, match="unknown layout"):
        command.main([config, "--debug", "--model.layout=bush", "--trainer.logger=false"])


def test_a_bug_says_its_kind_and_how_to_see_more(capsys):
    def buggy(argv):
        return difflib.get_close_matches("x", None)

    assert errors.run(buggy, []) == 1
    assert capsys.readouterr().err == "error: TypeError: 'NoneType' object is not iterable (--debug shows where)\n"


def test_a_real_process_prints_one_line_and_exits_with_one(config):
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    arguments = [sys.executable, "-m", "lightning_mem1.fit", config, "--model.memory", "mem2"]
    done = subprocess.run(arguments, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert [line[:27] for line in done.stderr.splitlines()] == ["error: unknown memory mode:"]
