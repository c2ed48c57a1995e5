"""The memory modes that let the policy say what leaves, over turns that say so in range and out of it.

What each context holds is derived from the turns alone, so promises 1 to 3 hold as in the other modes.
"""

import copy
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mem1.callbacks import MetricsCallback, RLCheckpoint
from lightning_mem1.cli import evaluate, play
from lightning_mem1.context.contexts import context_ids, contexts, drift
from lightning_mem1.context.settings import memory_mode
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.policy.policy import LoraSettings
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.types import StopReason
from memory_scripts import NARROW, ScoredScript, writer
from tiny import WordEnv, task, tiny_policy
from tiny_tasks import LongTasks

POLICY = tiny_policy(LoraSettings(r=4))
DOUBLE = copy.deepcopy(POLICY).double()
SEEDS = st.lists(st.integers(0, 9999), min_size=1, max_size=3)


def played(policy, setting, seeds, **other):
    """Episodes of at most eight turns, one for each seed."""
    engine = ScoredScript(policy, [writer(setting, seed) for seed in seeds])
    episodes = [Episode(task(seed % 2), WordEnv(["red shoes"] * 9), seed % 2, seed) for seed in seeds]
    settings_ = RolloutSettings(max_new_tokens=64, prompt="brief", max_information_tokens=60, **other)
    return collect(episodes, engine, policy.tokenizer, settings_, setting)


@pytest.mark.parametrize("name", list(NARROW))
@settings(max_examples=8, deadline=None)
@given(seeds=SEEDS)
def test_log_probs_of_both_layouts_equal_those_of_plain_passes_over_what_the_rollout_saw(name, seeds):
    trajectories = played(DOUBLE, NARROW[name], seeds)
    assert [drift(t, NARROW[name]) for t in trajectories] == [0] * len(seeds)
    assert {t.stop_reason for t in trajectories} == {StopReason.MAX_TURNS}  # nothing that is written ends an episode
    for layout in ("tree", "rows"):
        batch = collate(trajectories, layout, NARROW[name])
        logprobs, _ = DOUBLE.logprobs(batch)
        assert len(logprobs) == sum(len(turn.action_ids) for t in trajectories for turn in t.turns)
        assert (logprobs - batch.rollout_logprobs).abs().max() <= 1e-6


@pytest.mark.parametrize("name", ["compaction", "masked", "recall over compaction"])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 9999))
def test_what_the_local_engine_sampled_is_scored_as_it_was_where_budgets_and_notes_are_in_the_way(name, seed):
    """The engine reuses keys of contexts that then lose their beginning or their middle."""
    engine = LocalEngine(DOUBLE, EngineSettings(num_slots=3, max_context_tokens=512))
    episodes = [Episode(task(i % 2), WordEnv(["red shoes"] * 9), i % 2, seed + i) for i in range(3)]
    settings_ = RolloutSettings(max_new_tokens=16, prompt="brief", max_information_tokens=24)
    trajectories = collect(episodes, engine, DOUBLE.tokenizer, settings_, NARROW[name])
    assert [drift(t, NARROW[name]) for t in trajectories] == [0] * 3
    kept, everything = (sum(len(c) for t in trajectories for c in contexts(t, each)) for each in (NARROW[name], "full"))
    assert kept < everything
    for layout in ("tree", "rows"):
        batch = collate(trajectories, layout, NARROW[name])
        assert (DOUBLE.logprobs(batch)[0] - batch.rollout_logprobs).abs().max() <= 1e-6


@pytest.mark.parametrize("name", list(NARROW))
@settings(max_examples=4, deadline=None)
@given(seeds=SEEDS)
def test_tree_and_rows_agree_on_every_gradient(name, seeds):
    trajectories, found = played(DOUBLE, NARROW[name], seeds), []
    trained = [parameter for parameter in DOUBLE.parameters() if parameter.requires_grad]
    for layout in ("tree", "rows"):
        logprobs, _ = DOUBLE.logprobs(collate(trajectories, layout, NARROW[name]))
        weights = torch.sin(torch.arange(len(logprobs)))
        found.append(torch.autograd.grad((logprobs * weights).sum(), trained))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6 * max(1.0, float(other.abs().max())), rtol=1e-5)


@pytest.mark.parametrize("name", ["multiscale", "edit", "recall"])
def test_a_turn_that_was_opened_by_its_state_tag_is_scored_as_it_was(name):
    def behind(write):
        return lambda context: write(context.removesuffix("<summary>")).removeprefix("<summary>")

    engine = ScoredScript(DOUBLE, [behind(writer(NARROW[name], seed)) for seed in range(4)])
    episodes = [Episode(task(), WordEnv(["red shoes"] * 9), 0, seed) for seed in range(4)]
    opened = RolloutSettings(max_new_tokens=64, prompt="brief", max_information_tokens=60, begin_with_state=True)
    trajectories = collect(episodes, engine, DOUBLE.tokenizer, opened, NARROW[name])
    assert all(turn.opening_ids for t in trajectories for turn in t.turns)
    assert any(turn.directive for t in trajectories for turn in t.turns)
    assert [drift(t, NARROW[name]) for t in trajectories] == [0] * 4
    for layout in ("tree", "rows"):
        batch = collate(trajectories, layout, NARROW[name])
        assert (DOUBLE.logprobs(batch)[0] - batch.rollout_logprobs).abs().max() <= 1e-6


@pytest.mark.parametrize("name", list(NARROW))
def test_the_scripts_ask_for_what_can_be_done_and_for_what_cannot(name):
    """Else the tests above would show little: each mode drops something, and refuses something where it can."""
    mode = memory_mode(NARROW[name])
    trajectories = played(DOUBLE, mode, range(24))
    asked = Counter(turn.directive.name for t in trajectories for turn in t.turns if turn.directive)
    wanted = {"multiscale": {"fold"}, "fold": {"branch", "return"}, "edit": {"delete"}}
    assert set(asked) == wanted.get(name, {"recall"} if mode.actions else set()) and min(asked.values(), default=3) > 2
    kept, everything = (sum(len(c) for t in trajectories for c in contexts(t, each)) for each in (mode, "full"))
    assert kept < everything
    refused = [turn for t in trajectories for turn in t.turns if ": expected" in turn.information]
    assert bool(refused) == bool(asked) and not any(turn.valid or turn.directive for turn in refused)
    memories = [turn for t in trajectories for turn in t.turns if turn.kind == "memory"]
    assert bool(memories) == mode.staged


@pytest.mark.parametrize("name", list(NARROW))
def test_a_turn_that_is_retried_is_in_no_context_and_takes_no_number(name):
    trajectories = played(DOUBLE, NARROW[name], range(6), malformed="retry")
    retried = [turn for t in trajectories for turn in t.turns if turn.retried]
    assert retried and not any(turn.directive for turn in retried)
    assert [drift(t, NARROW[name]) for t in trajectories] == [0] * 6
    for trajectory in trajectories:
        left = [turn for turn in trajectory.turns if not turn.retried]
        ends = context_ids([], trajectory.turns, NARROW[name]), context_ids([], left, NARROW[name])
        assert ends[0] == ends[1]


@pytest.mark.parametrize("name", ["compaction", "recall over compaction"])
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 9999))
def test_every_context_of_a_budgeted_mode_keeps_to_the_budget(name, seed):
    (trajectory,) = played(DOUBLE, NARROW[name], [seed])
    sizes = {"act": 0, "memory": 0}
    for turn in trajectory.turns:
        sizes[turn.kind] = max(sizes[turn.kind], len(turn.ids) + len(turn.information_ids))
    alone = len(trajectory.prompt_ids) + sum(sizes.values())  # a prompt, a memory and a turn cannot be cut
    opening = max(len(turn.opening_ids) for turn in trajectory.turns)
    longest = max(len(context) for context in contexts(trajectory, NARROW[name]))
    assert longest <= max(NARROW[name]["budget"], alone) + opening


class Patient(LongTasks):
    """Time enough for four turns of the environment among those about memory."""

    def task(self, split, index):
        return replace(super().task(split, index), max_turns=10)


def trained(make_module, make_data, fit, name, *callbacks, num_rl_steps=2, **other):
    """A module that trains on scripted episodes; what is written follows from what is seen, so that it can resume."""
    roomy = RolloutSettings(max_new_tokens=64, max_information_tokens=60, prompt="brief")
    module = make_module(memory=NARROW[name], engine=EngineSettings(8, 700), rollout=roomy)
    module.sampling_policy  # noqa: B018  (made first: it would drop the engine)
    module._engine = ScoredScript(module.policy, [writer(NARROW[name], number) for number in range(6)])
    fit(module, make_data(Patient(), num_rl_steps=num_rl_steps, num_val_tasks=0), *callbacks, **other)
    return module


@pytest.mark.parametrize("name", list(NARROW))
def test_training_sees_what_the_rollout_saw_and_a_resumed_run_equals_the_whole_one(
    name, make_module, make_data, fit, tmp_path
):
    """Contexts follow from the turns, and a mode remembers nothing between calls: there is no state to be saved."""
    whole, rest = Recorder(), Recorder()
    module = trained(make_module, make_data, fit, name, whole)
    for metrics in whole.history:
        assert metrics["train/drift"] == 0 and metrics["train/rollout_gap_max"] < 2e-5
    checkpoint = RLCheckpoint(str(tmp_path / "part"))
    trained(make_module, make_data, fit, name, checkpoint, num_rl_steps=1, enable_checkpointing=True)
    resumed = trained(make_module, make_data, fit, name, rest, ckpt_path=str(checkpoint.last_path))
    assert rest.history == whole.history[1:] and len(rest.history) == 1
    assert whole.history[0]["train/grad_norm"] > 0
    one, other = module.policy.adapter_state(), resumed.policy.adapter_state()
    assert all(torch.equal(one[key], other[key]) for key in one)


class Recorder(MetricsCallback):
    """Keeps every rl_step's metrics but for seconds and memory of the process."""

    def __init__(self):
        super().__init__()
        self.history = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        known = {key: float(value) for key, value in trainer.callback_metrics.items()}
        # Lightning keeps what an earlier rl_step logged of turns that this one did not get to
        names = [key for key in known if key.startswith("train/") and "_turn_" not in key]
        self.history.append({key: known[key] for key in (*names, *KEPT)})


KEPT = ("rollout/reward", "memory/peak_tokens_mean", "memory/repeated_actions", "memory/recall_rate")


def test_every_mode_is_evaluated_beside_the_others_and_played(config, capsys):
    content = yaml.safe_load(Path(config).read_text())
    content["data"]["init_args"]["source"]["class_path"] = "tiny_tasks.LongTasks"
    Path(config).write_text(yaml.safe_dump(content))
    words = [name for name in NARROW if " " not in name]
    asked = ["--split=val", "--tasks=2", f"--memory=mem1,{','.join(words)}", "--output=out", "--page=2"]
    assert evaluate.main([config, *asked]) == 0
    rows = json.loads(Path("out/results.json").read_text())["rows"]
    assert [row["memory"] for row in rows] == ["mem1", *words]
    assert all(row["measures"]["recall_rate"]["mean"] == 0 for row in rows)  # a random policy recalls nothing
    capsys.readouterr()
    for word in words:
        assert play.main([config, f"--model.memory={word}"]) == 0
        assert f"4 turns, memory {word}" in capsys.readouterr().out
