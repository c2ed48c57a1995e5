"""The memory modes that let the policy say what leaves, over turns that say so in range and out of it.

What each context holds is derived from the turns alone, so promises 1 to 3 hold as in the other modes.
"""

import copy
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mem1.context.contexts import context_ids, contexts, drift
from lightning_mem1.context.settings import memory_mode
from lightning_mem1.policy.policy import LoraSettings
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.types import StopReason
from memory_scripts import NARROW, ScoredScript, writer
from tiny import WordEnv, task, tiny_policy

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


@pytest.mark.parametrize("name", list(NARROW))
def test_the_scripts_ask_for_what_can_be_done_and_for_what_cannot(name):
    """Else the tests above would show little: each mode drops something, and refuses something where it can."""
    mode = memory_mode(NARROW[name])
    trajectories = played(DOUBLE, mode, range(12))
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
    budget, opening = NARROW[name]["budget"], max(len(turn.opening_ids) for turn in trajectory.turns)
    # no prompt, memory and turn are together longer here: 30 tokens, 12 and up to 75
    assert max(len(context) for context in contexts(trajectory, NARROW[name])) <= budget + opening
