"""A run that dies anywhere and goes on equals the one that did not; a full disk loses nothing; MLflow's run is one."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback

from lightning_mem1.callbacks import MetricsCallback, RLCheckpoint
from lightning_mem1.io.atomic_files import keep, write_atomic
from lightning_mem1.tracking.mlflow_logger import ResumableMLflowLogger

NUM_KILLS = int(os.environ.get("LIGHTNING_MEM1_KILLS", "3"))
# what a clock or the machine says differs from run to run
MEASURED = ("seconds", "seconds_per_episode", "tokens_per_s", "process_gib")


def same(a, b):
    """Equal to the last bit, through tensors, dicts and lists."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def state(path):
    """What a checkpoint holds, without what names its run, and of Lightning's counters that of batches alone.

    A run that was killed after its last rl_step has no epoch left to end when it goes on: its epochs are one fewer.
    """
    content = torch.load(path, weights_only=True)
    content.pop("mlflow", None)
    content.pop("epoch")
    content["batches"] = content.pop("loops")["fit_loop"]["epoch_loop.batch_progress"]
    content["lightning_mem1"] = {k: v for k, v in content["lightning_mem1"].items() if k in ("rl_step", "base", "rng")}
    return content


def curves(client, run_id):
    """Steps and values by key; of what is measured the steps alone."""
    found = {}
    for key in client.get_run(run_id).data.metrics:
        points = client.get_metric_history(run_id, key)
        values = [None if key.endswith(MEASURED) else point.value for point in points]
        found[key] = sorted(zip([point.step for point in points], values, strict=True))
    return found


@pytest.fixture
def edited(config):
    """The small config with more rl_steps, validations between them, dropout, which draws random numbers, and turns
    (and so metrics) that only the first rl_step has."""
    content = yaml.safe_load(Path(config).read_text())
    content["model"]["lora"]["dropout"] = 0.1
    content["model"]["optim"] = {"num_minibatches": 2}
    content["data"]["init_args"] |= {"num_rl_steps": 4, "source": {"class_path": "tiny_tasks.FirstStepIsLong"}}
    content["trainer"]["val_check_interval"] = 2
    every = {"class_path": "lightning_mem1.callbacks.TranscriptCallback", "init_args": {"every_n_rl_steps": 1}}
    content["trainer"]["callbacks"] = [every]
    Path(config).write_text(yaml.safe_dump(content))
    return config


def checkpoints(folder):
    """What each checkpoint of a run holds, by name; anything that is not whole has no place there."""
    return {path.name: state(path) for path in (folder / "checkpoints").iterdir()}


def played(folder):
    """Tasks, seeds and texts of what was played and written down, by rl_step and validation."""
    return {path.name: path.read_text() for path in (folder / "transcripts").glob("*.jsonl")}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_run_killed_at_random_moments_ends_as_the_one_that_was_not(edited, tmp_path):
    from mlflow.tracking import MlflowClient

    root, store = Path(__file__).parents[2], f"sqlite:///{tmp_path / 'kills.db'}"
    env = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    command = [sys.executable, "-W", "ignore", str(root / "tests/killed_runs.py"), edited, store, str(NUM_KILLS), "0"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    client = MlflowClient(store)

    def runs(experiment):
        return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])

    whole, transcripts = checkpoints(tmp_path / "runs/whole/0"), played(tmp_path / "runs/whole/0")
    assert whole.keys() == {"best.ckpt", "last.ckpt", "rl_step_000003.ckpt", "rl_step_000004.ckpt"}
    assert whole["best.ckpt"]["lightning_mem1"]["rl_step"] == 0 and len(transcripts) == 4 + 3  # none was better later
    (uninterrupted,) = runs("whole")
    expected = curves(client, uninterrupted.info.run_id)
    assert [step for step, _ in expected["train/loss"]] == [1, 2, 3, 4]
    assert [step for step, _ in expected["memory/context_tokens_turn_3"]] == [1]
    killed = [json.loads(line) for line in done.stdout.splitlines()]
    print(*killed, sep="\n")
    assert sum(len(run["kills"]) for run in killed) == NUM_KILLS
    for run in killed:
        *empty, last = sorted((tmp_path / "runs" / run["experiment"]).iterdir(), key=lambda folder: int(folder.name))
        assert not any({path.name for path in folder.glob("checkpoints/*.ckpt")} - {"best.ckpt"} for folder in empty), (
            run
        )
        assert same(checkpoints(last), whole) and played(last) == transcripts, run
        finished = [r for r in runs(run["experiment"]) if r.info.status == "FINISHED"]
        assert [r.info.run_name for r in finished] == [f"{run['experiment']}/{last.name}"], run
        assert {kept[0] for kept in run["kept"] if kept} == {finished[0].info.run_id}, run
        assert curves(client, finished[0].info.run_id) == expected, run


class SmallDisk(Callback):
    """Before the checkpoint of an rl_step there is room for no more than a few bytes."""

    def __init__(self, rl_step, num_bytes):
        self.rl_step, self.num_bytes = rl_step, num_bytes

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if pl_module.rl_step == self.rl_step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.num_bytes, resource.RLIM_INFINITY))


@pytest.fixture
def unlimited():
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class Rising(MetricsCallback):
    """Validation rewards that rise."""

    def _flush(self, prefix, *more):
        self.num_validations = getattr(self, "num_validations", 0) + (prefix == "val")
        return {**super()._flush(prefix, *more), f"{prefix}/reward": float(self.num_validations)}


def test_a_disk_that_fills_up_keeps_what_was_written_and_the_run_goes_on_from_there(
    make_module, make_data, fit, tmp_path, unlimited
):
    often = {"enable_checkpointing": True, "val_check_interval": 1}
    whole, checkpoint = make_module(), RLCheckpoint(str(tmp_path / "whole"), save_adapter=False)
    fit(whole, make_data(), Rising(), checkpoint, **often)
    full = RLCheckpoint(str(tmp_path / "full"), save_adapter=False)
    with pytest.raises(
        OSError, match=r"cannot write '.*last.ckpt': expected room for \d+\.\d MiB, got 'File too large'"
    ):
        fit(make_module(), make_data(), Rising(), SmallDisk(3, 10_000), full, **often)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    names = {path.name for path in full.last_path.parent.iterdir()}
    assert names == {"last.ckpt", "best.ckpt", "rl_step_000001.ckpt", "rl_step_000002.ckpt"}
    for path in (full.last_path, full.best_path):
        assert state(path)["lightning_mem1"]["rl_step"] == 2
    resumed = make_module()
    fit(resumed, make_data(), Rising(), full, ckpt_path=str(full.last_path), **often)
    assert same(resumed.policy.adapter_state(), whole.policy.adapter_state())
    assert same(state(full.last_path)["optimizer_states"], state(checkpoint.last_path)["optimizer_states"])
    assert {path.name for path in full.last_path.parent.glob("rl_step*")} == {
        "rl_step_000002.ckpt",
        "rl_step_000003.ckpt",
    }


class CopyBeforeValidation(Callback):
    """Keeps the checkpoint that the last rl_step leaves before its validation is over."""

    def __init__(self, checkpoint, target):
        self.checkpoint, self.target = checkpoint, target

    def on_validation_start(self, trainer, pl_module):
        if self.checkpoint.last_path.exists():
            shutil.copy(self.checkpoint.last_path, self.target)


def test_a_run_that_goes_on_behind_its_last_rl_step_counts_its_batches_as_the_uninterrupted_one(
    make_module, make_data, fit, tmp_path
):
    often = {"enable_checkpointing": True, "val_check_interval": 1}
    whole = RLCheckpoint(str(tmp_path / "whole"), save_adapter=False)
    before = tmp_path / "before.ckpt"
    fit(make_module(), make_data(), Rising(), whole, CopyBeforeValidation(whole, before), **often)
    resumed = RLCheckpoint(str(tmp_path / "resumed"), save_adapter=False)
    fit(make_module(), make_data(), Rising(), resumed, ckpt_path=str(before), **often)
    kept, expected, found = map(state, (before, whole.last_path, resumed.last_path))
    assert kept["lightning_mem1"]["rl_step"] == expected["lightning_mem1"]["rl_step"] == 3
    assert kept["batches"]["total"]["completed"] == 2 and expected["batches"]["total"]["completed"] == 3
    assert found["batches"] == expected["batches"]


def test_a_file_that_finds_no_room_leaves_the_old_one_and_nothing_beside_it(tmp_path, unlimited):
    write_atomic(tmp_path / "last.ckpt", b"old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    with pytest.raises(OSError, match=r"expected room for 1\.0 MiB, got 'File too large'"):
        write_atomic(tmp_path / "last.ckpt", bytes(2**20))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"last.ckpt": b"old"}


def test_a_kept_name_holds_its_own_content_and_only_the_last_ones_stay(tmp_path):
    for number in range(4):
        write_atomic(tmp_path / "last.ckpt", str(number).encode())
        keep(tmp_path / "last.ckpt", tmp_path / f"rl_step_{number}.ckpt", "rl_step_*.ckpt", 2)
    content = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert content == {"last.ckpt": "3", "rl_step_2.ckpt": "2", "rl_step_3.ckpt": "3"}
    keep(tmp_path / "last.ckpt", tmp_path / "rl_step_4.ckpt", "rl_step_*.ckpt", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_numbers_wait_until_they_are_sent_and_are_taken_once(mlflow_uri):
    first = ResumableMLflowLogger("outbox", "outbox/0", mlflow_uri)
    first.holds = True
    first.log_metrics({"train/loss": 1.0}, 1)
    first.hold({"train/loss": 5.0, "val/reward": 2.0}, 1)  # the loss of rl_step 1 is known already
    kept = first.state()
    first.send()
    again = ResumableMLflowLogger(
        "outbox", "outbox/0", mlflow_uri, first.run_id
    )  # died between the checkpoint and its end
    again.restore(kept)
    again.send()
    again.holds = True
    again.log_metrics({"train/loss": 1.0}, 1)
    assert again.outbox == [] and again.run_id == first.run_id
    assert curves(again.experiment, again.run_id) == {"train/loss": [(1, 1.0)], "val/reward": [(1, 2.0)]}


def test_a_setting_that_changed_between_two_attempts_is_a_tag(mlflow_uri):
    first = ResumableMLflowLogger("changed", "changed/0", mlflow_uri)
    first.log_hyperparams({"model.lr": 0.1, "model.memory": "mem1", "long": "x" * 300})
    first.finalize("failed")
    again = ResumableMLflowLogger("changed", "changed/0", mlflow_uri, first.run_id)
    assert again.experiment.get_run(first.run_id).info.status == "RUNNING"
    again.log_hyperparams({"model.lr": 0.2, "model.memory": "mem1", "long": "x" * 300, "new": 1})
    run = again.experiment.get_run(again.run_id)
    assert run.data.params == {"model.lr": "0.1", "model.memory": "mem1", "long": "x" * 250, "new": "1"}
    changed = {key: value for key, value in run.data.tags.items() if key.startswith("changed/")}
    assert changed == {"changed/model.lr": "0.2 (was 0.1)"}


def test_a_run_that_mlflow_no_longer_has_is_replaced_by_a_new_one(mlflow_uri, capsys):
    logger = ResumableMLflowLogger("gone", "gone/0", mlflow_uri, "0" * 32)
    assert logger.run_id != "0" * 32
    assert capsys.readouterr().err == f"MLflow has no run {'0' * 32} (any more): the curves continue in a new one\n"


def test_numbers_that_mlflow_cannot_take_wait_for_the_next_time(mlflow_uri, capsys, unlimited):
    logger = ResumableMLflowLogger("full", "full/0", mlflow_uri)
    logger.holds = True
    run_id = logger.run_id
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    for step in (1, 2):
        logger.log_metrics({"train/loss": float(step)}, step)
        logger.send()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert capsys.readouterr().err.count("MLflow did not take numbers (") == 1
    assert len(logger.outbox) == 2
    logger.send()
    assert curves(logger.experiment, run_id) == {"train/loss": [(1, 1.0), (2, 2.0)]}
