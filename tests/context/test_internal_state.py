import pytest

from lightning_mem1.context.internal_state import (
    copy_rate,
    copy_rates,
    state_end,
    state_lengths,
    state_mask,
    state_span,
    state_spans,
    state_turns,
)
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task

WORDS = {1: "<summary>", 2: "</summary>", 3: "<answer>", 4: "</answer>"} | {n: f" w{n}" for n in range(10, 20)}


def decode(ids):
    return "".join(WORDS[i] for i in ids)


@pytest.mark.parametrize(
    ("ids", "span"),
    [
        ([1, 10, 11, 2, 3, 12, 4], (1, 3)),
        ([1, 10, 11, 12], (1, 4)),  # cut off: the state goes to the end of the turn
        ([3, 10, 4], (3, 3)),  # no state at all
        ([1, 2, 3], (1, 1)),
        ([], (0, 0)),
    ],
)
def test_a_state_lies_between_its_tags(ids, span):
    assert state_span(ids, decode, "summary") == span


@pytest.mark.parametrize(
    ("ids", "end"),
    [
        ([1, 10, 11, 2, 3, 12, 4], 4),
        ([10, 1, 11, 2, 3], 4),  # words before the tag belong to the state's piece
        ([1, 10, 11, 12], 4),  # cut off
        ([10, 1], 2),
        ([3, 10, 4], 0),  # no state at all
        ([2, 10, 1, 11, 2, 3], 5),  # a stray closing tag ends nothing
        ([], 0),
    ],
)
def test_a_state_with_its_tags_ends_where_its_closing_tag_does(ids, end):
    assert state_end(ids, decode, "summary") == end


def played(*turns):
    return Trajectory(task(), [9], [Turn(ids, [0.0] * len(ids)) for ids in turns], StopReason.DONE)


def test_a_memory_written_apart_is_a_state_whose_opening_was_not_sampled():
    memories = [Turn(ids, [0.0] * len(ids), kind="memory", opening_ids=[1]) for ids in ([10, 11, 12, 2], [10, 11, 12])]
    acts = [Turn([13, 3, 14, 4], [0.0] * 4) for _ in range(3)]
    t = Trajectory(task(), [9], [acts[0], memories[0], acts[1], memories[1], acts[2]], StopReason.DONE)
    spans = state_spans(t, decode, "summary")
    assert (spans[1], spans[3]) == ((0, 3), (0, 3)) and spans[0] == (4, 4)
    assert state_mask(t, spans).tolist() == [*[False] * 4, *[True] * 3, *[False] * 5, *[True] * 3, *[False] * 4]
    assert (state_turns(t), state_lengths(t, spans)) == ([1, 3], [3, 3])
    assert copy_rates(t, spans) == [1.0]  # of the second memory against the first, whatever acts stand between
    assert state_turns(played([1, 10, 2, 3], [3, 4])) == [0, 1]


def test_the_mask_is_true_on_the_states_of_all_turns():
    t = played([1, 10, 2, 3], [3, 4], [1, 11, 12])
    mask = state_mask(t, state_spans(t, decode, "summary"))
    assert mask.tolist() == [False, True, False, False, False, False, False, True, True]


def test_the_copy_rate_is_the_share_of_runs_of_three_that_stood_in_the_state_before():
    assert copy_rate([10, 11, 12, 13], [10, 11, 12, 14]) == 0.5
    assert copy_rate([10, 11, 12], [10, 11, 12]) == 1.0
    assert copy_rate([10, 11, 12], [12, 11, 10]) == 0.0
    assert copy_rate([10, 11, 12], [10, 11]) is None


def test_copy_rates_compare_each_state_with_the_one_right_before_it():
    t = played([1, 10, 11, 12, 2], [1, 10, 11, 12, 2], [1, 13, 10, 11, 12, 2], [1, 10, 2])
    assert copy_rates(t, state_spans(t, decode, "summary")) == [1.0, 0.5]
