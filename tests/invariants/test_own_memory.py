"""A memory mode of somebody else's, one file and one YAML outside of the package, does all that ours do."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.loggers import MLFlowLogger

from lightning_mem1.callbacks import RolloutCallback, default_callbacks
from lightning_mem1.cli import evaluate, fit, play
from lightning_mem1.context.contexts import drift
from lightning_mem1.context.settings import memory_mode
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.policy.policy import LoraSettings
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.testing import check_memory
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.training.settings import LossSettings, OptimSettings
from tiny import WordEnv, task, tiny_policy
from tiny_tasks import LongTasks

FILE = '''
"""Keeps the history until it passes a budget; then a call of its own sums it up, and the memory takes its place."""

from collections import Counter
from dataclasses import dataclass

from lightning_mem1.context.memory import MemoryMode, whole

ASKED = Counter()


@dataclass(frozen=True)
class Compact(MemoryMode):
    budget: int = 60
    staged = True

    def context(self, turns):
        ASKED[len(turns)] += 1
        memories = [number for number, turn in enumerate(turns) if turn.kind == "memory"]
        return whole(turns[memories[-1] :] if memories else turns)

    def due(self, turns, prompt_tokens=0):
        written = turns and turns[-1].kind == "act"
        return "memory" if written and prompt_tokens + self.size(turns) > self.budget else "act"

    def size(self, turns):
        return sum(len(turn.ids) + len(turn.information_ids) for turn in turns)


def plan(turns):
    """The first turn, and the last one."""
    return whole([*turns[:1], *turns[1:][-1:]])
'''
QUIET = "--trainer.logger=false"


@pytest.fixture
def compact(tmp_path, monkeypatch):
    """The file as a module; gone again afterwards."""
    (tmp_path / "compact.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    import compact

    yield compact
    del sys.modules["compact"]


@pytest.fixture
def own(compact, config, tmp_path):
    """The YAML, with episodes of four turns."""
    content = yaml.safe_load(Path(config).read_text())
    content["model"]["memory"] = {"mode": "compact.Compact", "budget": 50}
    content["data"]["init_args"]["source"]["class_path"] = "tiny_tasks.LongTasks"
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_it_keeps_to_what_a_memory_mode_has_to(compact):
    report = check_memory({"mode": "compact.Compact", "budget": 40})
    assert report.longest[32] >= 40 and check_memory(compact.Compact(40)) == report
    assert check_memory("compact.plan").longest == {1: 11, 2: 19, 4: 19, 8: 19, 16: 19, 32: 19}


@pytest.mark.parametrize("name", ["compact.Compact", "compact.plan"])
def test_training_scores_exactly_what_its_rollout_saw(compact, name):
    policy, memory = tiny_policy(LoraSettings(r=4)), memory_mode(name)
    engine = LocalEngine(policy, EngineSettings(num_slots=3, max_context_tokens=512))
    episodes = [Episode(task(i % 2), WordEnv(["red blue", "red", "red " * 6, "blue", ""]), i % 2, i) for i in range(4)]
    settings = RolloutSettings(max_new_tokens=8, prompt="brief", max_information_tokens=24)
    trajectories = collect(episodes, engine, policy.tokenizer, settings, memory)
    kinds = Counter(turn.kind for t in trajectories for turn in t.turns)
    assert kinds["act"] >= 16 and (kinds["memory"] >= 4) == memory.staged
    assert [drift(t, memory) for t in trajectories] == [0] * 4
    for layout in ("tree", "rows"):
        batch = collate(trajectories, layout, memory)
        assert len(batch.action_ids) == sum(len(turn.action_ids) for t in trajectories for turn in t.turns)
        assert (policy.logprobs(batch)[0] - batch.rollout_logprobs).abs().max() <= 1e-5


def test_it_trains_resumes_is_evaluated_beside_ours_and_is_played(own, capsys):
    assert fit.main([own, QUIET, "--data.num_rl_steps=1"]) == 0
    assert "memory compact.Compact" in capsys.readouterr().out
    assert fit.main([own, QUIET, "--ckpt_path=last"]) == 0
    lines = Path("runs/own/0/transcripts/train_00001.jsonl").read_text().splitlines()
    turns = [turn for record in map(json.loads, lines) for turn in record["turns"]]
    assert {turn["kind"] for turn in turns} == {"act", "memory"} and any(turn["dropped_tokens"] for turn in turns)
    asked = [
        "--ckpt_path=last",
        "--split=val",
        "--tasks=2",
        "--memory=mem1,compact.plan,compact.Compact",
        "--output=out",
    ]
    assert evaluate.main([own, QUIET, *asked]) == 0
    rows = json.loads(Path("out/results.json").read_text())
    assert [row["memory"] for row in rows["rows"]] == ["mem1", "compact.plan", "compact.Compact budget 50"]
    capsys.readouterr()
    assert play.main([own, "--ckpt_path=last"]) == 0
    assert "4 turns, memory compact.Compact" in capsys.readouterr().out


@pytest.mark.parametrize("memory", ["compact.Compact", "compact.plan", "mem1", "full", "amem"])
def test_an_rl_step_derives_the_context_of_each_turn_once(compact, make_module, make_data, fit, mlflow_uri, memory):
    """With every callback of a run, two epochs and minibatches; the rollout before it asks once for itself."""
    mode, asked = counted(memory), Counter[int]()

    class AfterRollout(RolloutCallback):
        """Begins to count when the episodes are played."""

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
            asked.update(number for t in batch.trajectories for number in range(len(t.turns)))
            mode.asked.clear()

    settings = {
        "algorithm": "ppo",
        "optim": OptimSettings(num_epochs=2, num_minibatches=2),
        "loss": LossSettings(kl_coef=0.1),
    }
    module = make_module(memory=mode, engine=EngineSettings(8, 400), **settings)
    callbacks = [
        each
        for each in default_callbacks(AfterRollout())
        if type(each).__name__ not in ("ModelCallback", "RLCheckpoint")
    ]
    logger = MLFlowLogger("derived", tracking_uri=mlflow_uri)
    fit(module, make_data(LongTasks(), num_rl_steps=1, num_val_tasks=0), *callbacks, logger=logger)
    assert len(asked) >= 4 and Counter(mode.asked) == asked


def counted(setting):
    """The memory mode, with `asked`: the number of turns each time it was asked for a context, as it was given them."""
    mode = memory_mode(setting)
    kind, calls = type(mode), []

    class Counted(kind):
        asked = calls

        def context(self, turns):
            calls.append(len(turns))
            return super().context(turns)

    return Counted(**{key: value for key, value in vars(mode).items() if key != "asked"})
