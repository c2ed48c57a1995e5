"""Episodes played by workers: training sees what it would have seen without them, one step off too."""

from dataclasses import replace

import pytest
from lightning.pytorch import Callback

from lightning_mem1.callbacks import MetricsCallback, RolloutCallback
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.rollout.workers.settings import WorkerSettings
from lightning_mem1.training.credit.importance import MismatchSettings

HERE = RolloutSettings(max_new_tokens=6, max_information_tokens=40, prompt="brief")
THERE = replace(HERE, workers=WorkerSettings("processes", 2))
AHEAD = EngineSettings(num_slots=8, max_context_tokens=160, one_step_off=True)
MEASURED = ("seconds", "tokens_per_s", "seconds_per_episode", "process_gib")  # of the machine, not of the run
OF_WORKERS = {f"rollout/{name}" for name in ("worker_restarts", "waiting_share", "staleness_max", "mixed_share")}


class Diary(Callback):
    """What was played and logged in every rl_step."""

    def __init__(self):
        self.played, self.logged = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.played.append([[turn.action_ids for turn in t.turns] for t in batch.trajectories])
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.logged.append({name: value for name, value in found.items() if not name.endswith(MEASURED)})


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"engine": AHEAD, "mismatch": MismatchSettings("tis")}])
def test_a_training_with_workers_is_the_one_without(make_module, make_data, fit, settings):
    diaries = [Diary(), Diary()]
    for diary, rollout in zip(diaries, (HERE, THERE), strict=True):
        callback = RolloutCallback()
        fit(make_module(lr=1e-3, rollout=rollout, **settings), make_data(), callback, MetricsCallback(), diary)
        assert callback._workers is None, "nobody is left behind"
    here, there = diaries
    assert there.played == here.played and len(here.played) == 3
    assert {"val/reward", "train/loss", "rollout/reward"} <= here.logged[-1].keys()
    for before, after in zip(here.logged, there.logged, strict=True):
        assert after.keys() == before.keys() | OF_WORKERS
        assert {name: after[name] for name in before} == pytest.approx(before, rel=1e-4, abs=1e-5, nan_ok=True)
