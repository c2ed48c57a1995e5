"""Promises 1-3: training sees exactly what the rollout saw, nothing leaks, ids in are ids out."""

import copy
import random
from unittest import mock

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightning_mem1.context.contexts import drift
from lightning_mem1.context.modes import MODES
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.policy.policy import LoraSettings
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.layouts import trie
from lightning_mem1.training.layouts.collate import collate
from tiny import WordEnv, random_ids, random_trajectory, task, tiny_policy

LENGTHS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 9)), min_size=1, max_size=6)
PLANS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=5)  # words of each reply
POLICY = tiny_policy(LoraSettings(r=4))
DOUBLE = copy.deepcopy(POLICY).double()  # its log-probs are rounded to float32 in the end, on both sides


def gradients(logprobs):
    weights = torch.sin(torch.arange(len(logprobs)))  # unlike weights, so that no token's gradient can hide
    trained = [p for p in POLICY.parameters() if p.requires_grad]
    return torch.autograd.grad((logprobs * weights).sum(), trained)


@pytest.mark.parametrize("mode", list(MODES))
@settings(max_examples=12, deadline=None)
@given(plans=PLANS, seed=st.integers(0, 99))
@example(plans=[[0] * 4, [0, 0], [0, 0], [0, 1, 0]], seed=26)  # float32 is 1.001e-5 apart in a token with small norms
def test_training_log_probs_equal_those_of_the_rollout(mode, plans, seed):
    trajectories = played(DOUBLE, mode, plans, seed)
    for layout in ("tree", "rows"):
        batch = collate(trajectories, layout, mode)
        logprobs, _ = DOUBLE.logprobs(batch)
        assert len(logprobs) == sum(len(turn.action_ids) for t in trajectories for turn in t.turns)
        assert (logprobs - batch.rollout_logprobs).abs().max() <= 1e-6


@pytest.mark.parametrize("mode", list(MODES))
@settings(max_examples=12, deadline=None, derandomize=True)  # once in many, rounding alone is 1.2e-5 in a token
@given(plans=PLANS, seed=st.integers(0, 99))
def test_in_float32_they_are_equal_but_for_rounding(mode, plans, seed):
    trajectories = played(POLICY, mode, plans, seed)
    for layout in ("tree", "rows"):
        batch = collate(trajectories, layout, mode)
        gaps = (POLICY.logprobs(batch)[0] - batch.rollout_logprobs).abs()
        assert gaps.max() <= 1e-5 and gaps.mean() <= 2e-6


def played(policy, mode, plans, seed):
    """Trajectories of environments that reply with so many words a turn."""
    engine = LocalEngine(policy, EngineSettings(num_slots=3, max_context_tokens=512))
    episodes = [
        Episode(task(i % 2), WordEnv(["red " * n for n in plan]), i % 2, seed + i) for i, plan in enumerate(plans)
    ]
    settings_ = RolloutSettings(max_new_tokens=8, prompt="brief", max_information_tokens=24)
    trajectories = collect(episodes, engine, policy.tokenizer, settings_, mode)
    assert [drift(t, mode) for t in trajectories] == [0] * len(plans)
    return trajectories


def group(rng, shapes, mode, with_twins):
    """Random trajectories of two prompts; twins go another way in their last turn."""
    prompts = [random_ids(rng, 5), random_ids(rng, 3)]
    found = [random_trajectory(rng, shape, prompts[i % 2], i, MODES[mode]().staged) for i, shape in enumerate(shapes)]
    for each in [*found] if with_twins else []:
        found.append(copy.deepcopy(each))
        last = found[-1].turns[-1]
        last.action_ids = [*last.action_ids[:-1], (last.action_ids[-1] + 1) % 250]
    return found


@pytest.mark.parametrize("mode", list(MODES))
@settings(max_examples=12, deadline=None)
@given(
    shapes=st.lists(LENGTHS, min_size=1, max_size=4), seed=st.integers(0, 99),
    with_twins=st.booleans(), worth=st.sampled_from([1, 3, trie.SHORTEST]),
)  # fmt: skip
def test_tree_and_rows_agree_on_log_probs_entropies_and_every_gradient(mode, shapes, seed, with_twins, worth):
    trajectories = group(random.Random(seed), shapes, mode, with_twins)
    with mock.patch.object(trie, "SHORTEST", worth):
        results = [POLICY.logprobs(collate(trajectories, layout, mode)) for layout in ("tree", "rows")]
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=0)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-5, rtol=1e-5)
    for a, b in zip(gradients(results[0][0]), gradients(results[1][0]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 * max(1.0, float(b.abs().max())), rtol=1e-4)


@pytest.mark.parametrize("layout", ["tree", "rows"])
def test_pruned_turns_are_invisible_to_later_ones(layout):
    rng = random.Random(1)
    shape = [(3, 4), (2, 5), (4, 3), (2, 0)]
    base = random_trajectory(rng, shape, random_ids(rng, 5))
    before, _ = POLICY.logprobs(collate([base], layout))
    turns = collate([base], layout).turn_index
    base.turns[0].information_ids = random_ids(rng, 4)
    after, _ = POLICY.logprobs(collate([base], layout))
    assert torch.equal((before - after).abs() > 1e-6, (turns == 1))  # turn 1 saw it; turns 2 and 3 did not


@pytest.mark.parametrize("layout", ["tree", "rows"])
def test_a_memory_written_apart_is_all_that_later_turns_see_of_a_turn(layout):
    rng = random.Random(4)
    base = random_trajectory(rng, [(3, 4), (2, 5), (4, 0)], random_ids(rng, 5), staged=True)
    before, _ = POLICY.logprobs(collate([base], layout, "summary"))
    turns = collate([base], layout, "summary").turn_index  # A0 M0 A1 M1 A2

    def changed_turns():
        after, _ = POLICY.logprobs(collate([base], layout, "summary"))
        return sorted({int(turn) for turn, moved in zip(turns, (before - after).abs() > 1e-6, strict=True) if moved})

    reply, base.turns[0].information_ids = base.turns[0].information_ids, random_ids(rng, 4)
    assert changed_turns() == [1, 2]  # the memory that is made of the reply, and the act that answers it
    base.turns[0].information_ids = reply
    base.turns[0].action_ids = [(i + 1) % 250 for i in base.turns[0].action_ids]
    assert changed_turns() == [0, 1]  # itself, and the memory made of it


@pytest.mark.parametrize("layout", ["tree", "rows"])
def test_a_future_token_changes_nothing_before_it(layout):
    rng = random.Random(2)
    base = random_trajectory(rng, [(3, 4), (3, 5), (3, 0)], random_ids(rng, 5))
    before, _ = POLICY.logprobs(collate([base], layout))
    base.turns[1].action_ids[1] = (base.turns[1].action_ids[1] + 1) % 250
    after, _ = POLICY.logprobs(collate([base], layout))
    changed = ((before - after).abs() > 1e-6).tolist()
    assert changed[:4] == [False] * 4
    assert all(changed[4:])


def test_another_trajectory_in_the_batch_changes_nothing():
    rng = random.Random(3)
    prompt = random_ids(rng, 5)
    first, second, third = (random_trajectory(rng, [(3, 4), (2, 2), (2, 0)], prompt, i) for i in range(3))
    alone, _ = POLICY.logprobs(collate([first]))
    together, _ = POLICY.logprobs(collate([second, first, third]))
    torch.testing.assert_close(together[7:14], alone, atol=1e-6, rtol=0)


def test_the_stop_token_is_scored():
    engine = LocalEngine(POLICY, EngineSettings(num_slots=1, max_context_tokens=256))
    stop = POLICY.tokenizer.encode("</answer>", add_special_tokens=False)
    assert len(stop) == 1
    for seed in range(200):
        episode = Episode(task(), WordEnv(["red"]), 0, seed)
        trajectory = collect([episode], engine, POLICY.tokenizer, RolloutSettings(max_new_tokens=200, prompt="brief"))[
            0
        ]
        if trajectory.turns[0].action_ids[-1] == stop[0]:
            break
    else:
        pytest.fail("the random policy never sampled the stop token")
    batch = collate([trajectory])
    assert batch.action_ids[-1] == stop[0]
    assert abs(POLICY.logprobs(batch)[0][-1] - trajectory.turns[0].action_logprobs[-1]) <= 1e-5


@pytest.mark.parametrize("mode", ["mem1", "full", "window", "summary"])
def test_a_turn_that_is_given_its_opening_tag_is_scored_without_it_and_exactly(mode):
    engine = LocalEngine(POLICY, EngineSettings(num_slots=3, max_context_tokens=512))
    episodes = [Episode(task(i), WordEnv(["red ", "red red", ""]), i, i) for i in range(3)]
    settings_ = RolloutSettings(max_new_tokens=8, prompt="brief", max_information_tokens=24, begin_with_state=True)
    trajectories = collect(episodes, engine, POLICY.tokenizer, settings_, mode)
    opening = POLICY.tokenizer.encode("<summary>", add_special_tokens=False)
    acts = [turn for t in trajectories for turn in t.acts]
    assert {tuple(turn.opening_ids) for turn in acts} == ({()} if mode == "summary" else {tuple(opening)})
    assert [drift(t, mode) for t in trajectories] == [0, 0, 0]
    for layout in ("tree", "rows"):
        batch = collate(trajectories, layout, mode)
        assert len(batch.action_ids) == sum(len(turn.action_ids) for t in trajectories for turn in t.turns)
        assert (POLICY.logprobs(batch)[0] - batch.rollout_logprobs).abs().max() <= 1e-5
