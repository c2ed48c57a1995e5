"""Training on episodes that workers play ahead: the tasks and seeds of a synchronous run, within the bound."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Callback

from lightning_mem1.callbacks import MetricsCallback, RolloutCallback
from lightning_mem1.engine.settings import EngineSettings, ServerSettings
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.rollout.workers.settings import WorkerSettings
from lightning_mem1.training.credit.importance import MismatchSettings

ROOT = Path(__file__).parents[2]
HERE = RolloutSettings(max_new_tokens=6, max_information_tokens=40, prompt="brief")
AHEAD = replace(HERE, workers=WorkerSettings("processes", 1, max_staleness=2))
STALE_SERVER = EngineSettings(kind="server", server=ServerSettings(max_staleness=1))
TIS = MismatchSettings("tis")


class Diary(Callback):
    """What every rl_step learnt from."""

    def __init__(self):
        self.played, self.versions, self.logged = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.played.append([(t.task.id, t.group, t.seed) for t in batch.trajectories])
        self.versions.append([turn.version for t in batch.trajectories for turn in t.turns])
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def test_every_rl_step_learns_from_its_own_tasks_with_weights_within_the_bound(make_module, make_data, fit):
    there, here = Diary(), Diary()
    data = {"num_rl_steps": 5}
    fit(make_module(mismatch=TIS, rollout=HERE), make_data(**data), there)
    callback = RolloutCallback()
    fit(
        make_module(mismatch=TIS, rollout=AHEAD),
        make_data(**data),
        callback,
        MetricsCallback(),
        here,
        val_check_interval=2,
    )
    assert here.played == there.played and len(here.played) == 5
    assert callback._workers is None, "nobody is left behind"
    for rl_step, versions in enumerate(here.versions, start=1):
        assert versions and all(max(0, rl_step - 3) <= version < rl_step for version in versions)
    assert {"rollout/staleness", "rollout/staleness_max", "rollout/mixed_share", "rollout/waiting_share"} <= set(
        here.logged[-1]
    )
    assert all(0 <= logged["rollout/staleness"] <= logged["rollout/staleness_max"] <= 2 for logged in here.logged)
    assert here.logged[-1]["val/reward"] == 0.5 and here.logged[-1]["train/is_ratio_mean"] > 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"rollout": AHEAD}, "stale weights need a correction: .* model.rollout.workers.max_staleness 0"),
        (
            {"rollout": AHEAD, "mismatch": TIS, "engine": EngineSettings(one_step_off=True)},
            "two ways to play ahead: .* got both",
        ),
        (
            {"rollout": AHEAD, "mismatch": TIS, "engine": STALE_SERVER},
            "staleness without a bound: .* got 1; set it to 0",
        ),
        (
            {"rollout": AHEAD, "mismatch": TIS, "engine": EngineSettings(replay_routing=True)},
            "no one routing to replay: expected model.rollout.workers.max_staleness 0 .* set it to 0",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(make_module, settings, expected):
    with pytest.raises(ValueError, match=expected) as caught:
        make_module(**settings)
    assert "\n" not in str(caught.value)


def test_without_workers_nobody_plays_ahead():
    with pytest.raises(ValueError, match="nobody to play ahead: .* got kind none; set model.rollout.workers.kind"):
        WorkerSettings(max_staleness=1)


def run(config, folder, *options):
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-W", "ignore", "-m", "lightning_mem1.fit", config, "--trainer.logger=false", *options]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600)


def learnt_from(folder):
    """Tasks and seeds of each rl_step."""
    found = {}
    for path in sorted((folder / "transcripts").glob("train_*.jsonl")):
        found[path.name] = [(each["task"], each["seed"]) for each in map(json.loads, path.read_text().splitlines())]
    return found


@pytest.mark.slow
def test_a_run_that_was_killed_learns_from_every_task_once(config, tmp_path):
    content = yaml.safe_load(Path(config).read_text())
    content["model"]["rollout"]["workers"] = {"kind": "processes", "count": 2, "max_staleness": 2, "num_threads": 1}
    content["model"]["mismatch"] = {"correction": "tis"}
    content["data"]["init_args"] |= {"source": {"class_path": "tiny_tasks.EvenTasks"}, "num_rl_steps": 4}
    every = {"class_path": "lightning_mem1.callbacks.TranscriptCallback", "init_args": {"every_n_rl_steps": 1}}
    content["trainer"]["callbacks"] = [every, {"class_path": "tiny_tasks.KilledAtThree"}]
    Path(config).write_text(yaml.safe_dump(content))
    done = run(config, tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    done = run(config, tmp_path, "--ckpt_path=last")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "every task is learnt from once" in done.stderr
    content["model"] |= {"mismatch": {}, "rollout": {**content["model"]["rollout"], "workers": {}}}
    content["trainer"]["callbacks"] = [every]
    whole = tmp_path / "whole.yaml"
    whole.write_text(yaml.safe_dump(content))
    assert run(str(whole), tmp_path).returncode == 0
    found, expected = (learnt_from(tmp_path / "runs" / name / "0") for name in ("tiny", "whole"))
    assert found == expected and len(found) == 4
