"""Credit where the context is rewritten: rows, segments, and what they leave out against GAE that crosses rewrites."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_mem1.context.contexts import Contexts
from lightning_mem1.context.modes.compaction import Compaction
from lightning_mem1.training.credit.advantages import gae
from lightning_mem1.training.credit.algorithms import ALGORITHMS, CreditSettings
from lightning_mem1.training.credit.grouped_rollouts import GroupedRollouts
from lightning_mem1.training.credit.rewrites import gae_by_rows, gae_by_segments, segments
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task

P = [1, 2]
PARTS = st.lists(st.integers(0, 4), min_size=1, max_size=5)


def turn(number, **other):
    return Turn([10 * number, 10 * number + 1], [0.0] * 2, [10 * number + 2], **other)


def of(mode, turns):
    return segments(Contexts(mode).of(Trajectory(task(), P, turns, StopReason.DONE)))


def test_a_segment_ends_where_something_leaves_the_context():
    turns = [turn(number) for number in (1, 2, 3, 4)]
    assert of("full", turns) == [0, 0, 0, 0]
    assert of("mem1", turns) == [0, 0, 1, 2]
    assert of("window", turns) == [0, 0, 0, 1]
    assert of("none", turns) == [0, 0, 1, 2]


def test_in_compaction_a_memory_ends_the_segment_that_it_sums_up():
    memory = Turn([50], [0.0], kind="memory", opening_ids=[5])
    turns = [turn(1), turn(2), turn(3), memory, turn(4)]
    assert of(Compaction(8), turns) == [0, 0, 0, 0, 1]


def test_a_row_is_an_episode_that_is_paid_at_its_end_all_that_was_to_come():
    rewards, values = torch.tensor([0.0, 0.0, 8.0]), torch.zeros(3)
    assert gae_by_rows(rewards, values, [1, 2], 0.5, 1.0).tolist() == [8.0, 4.0, 8.0]
    assert gae_by_rows(torch.tensor([1.0, 0.0, 8.0]), values, [1, 2], 0.5, 1.0).tolist() == [9.0, 4.0, 8.0]
    assert gae_by_rows(rewards, torch.tensor([3.0, 0.0, 0.0]), [1, 2], 0.5, 1.0).tolist() == [5.0, 4.0, 8.0]


def test_a_segment_is_paid_what_was_to_come_less_the_discount_of_the_tokens_until_then():
    rewards, values = torch.tensor([0.0, 0.0, 8.0]), torch.zeros(3)
    assert gae_by_segments(rewards, values, [1, 2], 0.5, 1.0).tolist() == [2.0, 4.0, 8.0]
    assert gae_by_segments(rewards, values, [1, 2], 0.5, 0.5).tolist() == [2.0, 2.0, 8.0]
    assert gae(rewards, values, 0.5, 0.5).tolist() == [0.5, 2.0, 8.0]  # lam decays across the rewrite as well
    # three parts: 8 comes three tokens after the first
    assert gae_by_segments(torch.tensor([0.0, 0.0, 0.0, 8.0]), torch.zeros(4), [1, 2, 1], 0.5, 1.0).tolist() == [
        1,
        2,
        4,
        8,
    ]


@given(lengths=PARTS, gamma=st.sampled_from([0.5, 0.9, 1.0]), seed=st.integers(0, 99))
def test_with_lam_one_segments_differ_from_gae_across_rewrites_in_nothing(lengths, gamma, seed):
    generator = torch.Generator().manual_seed(seed)
    rewards, values = (torch.randn(sum(lengths), generator=generator, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close(gae_by_segments(rewards, values, lengths, gamma, 1.0), gae(rewards, values, gamma, 1.0))


def test_what_lies_beyond_a_cut_is_paid_at_the_end_of_every_part():
    rewards, values = torch.zeros(3), torch.zeros(3)
    assert gae_by_segments(rewards, values, [1, 2], 0.5, 1.0, 8.0).tolist() == [1.0, 2.0, 4.0]
    assert gae(rewards, values, 0.5, 1.0, 8.0).tolist() == [1.0, 2.0, 4.0]
    assert gae_by_rows(rewards, values, [1, 2], 0.5, 1.0, 8.0).tolist() == [8.0, 4.0, 8.0]


@given(lengths=PARTS, lam=st.sampled_from([0.0, 0.7, 1.0]), seed=st.integers(0, 99))
def test_of_one_part_all_are_the_same(lengths, lam, seed):
    generator, count = torch.Generator().manual_seed(seed), sum(lengths)
    rewards, values = (torch.randn(count, generator=generator, dtype=torch.float64) for _ in range(2))
    crossing = gae(rewards, values, 0.9, lam)
    for apart in (gae_by_rows, gae_by_segments):
        torch.testing.assert_close(apart(rewards, values, [0, count], 0.9, lam), crossing)


def played(turn_lengths, rewards, parts, values=None):
    trajectories = [
        Trajectory(task(), P, [Turn([7] * n, [0.0] * n, reward=0.0) for n in lengths], StopReason.DONE)
        for lengths in turn_lengths
    ]
    for trajectory, reward in zip(trajectories, rewards, strict=True):
        trajectory.turns[-1].reward = reward
    return GroupedRollouts.of(trajectories, values=values, segments=parts)


def test_resum_grpo_gives_each_segment_the_advantage_of_its_episode_and_the_same_weight():
    group = played([[1, 1, 2], [2]], [1.0, 0.0], [[0, 0, 1], [0]])
    found = ALGORITHMS["resum_grpo"].give_credit(group, CreditSettings("none")).advantages
    assert [each.tolist() for each in found] == [[0.5] * 4, [-0.5] * 2]  # segments of two tokens, all of them
    uneven = played([[1, 1, 2], [6]], [1.0, 0.0], [[0, 1, 1], [0]])  # of 1, 3 and 6, on average 10 / 3
    found = ALGORITHMS["resum_grpo"].give_credit(uneven, CreditSettings("none")).advantages
    sums = [float(found[0][:1].sum()), float(found[0][1:].sum()), float(found[1].sum())]
    assert sums == pytest.approx([0.5 * 10 / 3, 0.5 * 10 / 3, -0.5 * 10 / 3])


def test_ppo_ends_gae_at_rows_or_segments_where_that_is_asked_for():
    values = [torch.tensor([0.0, 2.0, 4.0, 0.0])]

    def advantages(rewrites, lam=0.0):
        group = played([[1, 1, 2]], [8.0], [[0, 0, 1]], values)
        settings = CreditSettings(lam=lam, rewrites=rewrites)
        return ALGORITHMS["ppo"].give_credit(group, settings).advantages[0].tolist()

    assert advantages("cross") == [2.0, 2.0, -4.0, 8.0]  # each looks at the next value
    assert advantages("segments") == [2.0, 6.0, -4.0, 8.0]  # the second token's segment ends, and is paid 8
    assert advantages("rows") == [8.0, 6.0, -4.0, 8.0]


def test_the_module_derives_segments_where_they_are_asked_for(make_module):
    settings = CreditSettings(rewrites="segments", lam=0.0)
    module = make_module(algorithm="ppo", credit=settings, memory="mem1")
    turns = [turn(1), turn(2), turn(3, reward=8.0)]
    trajectory = Trajectory(task(), P, turns, StopReason.DONE)
    credit = module.credit_assigner._played([trajectory], [[(0, 0)] * 3], {"values": [torch.zeros(6)]})
    assert credit.segments == [[0, 0, 1]]


@pytest.mark.parametrize("reason", [StopReason.MAX_TURNS, StopReason.CONTEXT, StopReason.DONE])
def test_an_episode_that_no_environment_ended_can_be_left_out_of_the_loss(make_module, reason):
    module = make_module(credit=CreditSettings(mask_overlong=True))
    others = [turn(1), turn(2, reward=1.0)]
    group = [Trajectory(task(), P, [turn(1), turn(2)], reason), Trajectory(task(), P, others, StopReason.DONE)]
    first, second = module.credit_assigner.assign(group, {})
    masked = reason != StopReason.DONE
    assert first.has_signal != masked and bool(first.credited.any()) != masked
    # the other is compared with it all the same
    assert second.advantages.tolist() == pytest.approx([0.5 / (0.5**0.5 + 1e-6)] * 4)
    assert module.credit_assigner.masks(group[0]) == masked


def test_gae_over_turns_has_no_rows(make_module):
    with pytest.raises(ValueError, match=r"expected credit.rewrites cross, got rows; set model.credit.unit token"):
        make_module(algorithm="ppo", credit=CreditSettings(unit="turn", rewrites="rows"))


@given(PARTS, st.floats(0.1, 1.0), st.floats(0.0, 1.0))
def test_an_answer_counts_at_the_end_of_each_segment_less_the_discount_of_the_tokens_of_later_segments(
    lengths, gamma, lam
):
    lengths = [length for length in lengths if length] or [1]
    rewards, values = torch.zeros(sum(lengths), dtype=torch.float64), torch.zeros(sum(lengths), dtype=torch.float64)
    rewards[-1] = 8.0
    advantages = gae_by_segments(rewards, values, lengths, gamma, lam)
    for number in range(len(lengths)):
        later = sum(lengths[number + 1 :])
        assert advantages[sum(lengths[: number + 1]) - 1] == pytest.approx(8.0 * gamma**later)
