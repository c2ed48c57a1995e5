import pytest

from lightning_mem1.memory import MODES, check_mode, context_ids, contexts, longest_context
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task

P = [1, 2]
A0, I0, A1, I1, A2 = [10, 11], [20], [12], [21, 22], [13]
TURNS = [Turn(A0, [0.0] * 2, I0), Turn(A1, [0.0], I1)]


@pytest.mark.parametrize(
    ("mode", "window", "expected"),
    [
        ("mem1", 2, [1, 2, 12, 21, 22]),
        ("full", 2, [1, 2, 10, 11, 20, 12, 21, 22]),
        ("window", 2, [1, 2, 10, 11, 20, 12, 21, 22]),
        ("window", 1, [1, 2, 12, 21, 22]),
        ("none", 2, [1, 2, 21, 22]),
    ],
)
def test_the_next_context_holds_what_the_mode_keeps(mode, window, expected):
    assert context_ids(P, TURNS, mode, window) == expected


@pytest.mark.parametrize("mode", list(MODES))
def test_the_first_context_is_the_prompt_alone(mode):
    assert context_ids(P, [], mode) == P


def test_every_turn_of_a_trajectory_has_its_own_context():
    trajectory = Trajectory(task(), P, [*TURNS, Turn(A2, [0.0])], StopReason.DONE)
    assert contexts(trajectory, "mem1") == [[1, 2], [1, 2, 10, 11, 20], [1, 2, 12, 21, 22]]
    assert contexts(trajectory, "none") == [[1, 2], [1, 2, 20], [1, 2, 21, 22]]


def test_mem1_contexts_stop_growing_after_the_second_turn_and_full_ones_never_do():
    turns = [Turn([5] * 4, [0.0] * 4, [6] * 3) for _ in range(50)]
    trajectory = Trajectory(task(), P, turns, StopReason.MAX_TURNS)
    assert [len(c) for c in contexts(trajectory, "mem1")] == [2] + [9] * 49
    assert [len(c) for c in contexts(trajectory, "full")] == [2 + 7 * t for t in range(50)]


def test_an_unknown_mode_names_the_modes_there_are():
    with pytest.raises(ValueError, match="expected one of mem1, full, window, none, got 'mem2'; set model.memory"):
        check_mode("mem2")


def test_a_window_of_zero_turns_is_refused():
    with pytest.raises(ValueError, match="expected at least 1 turn, got 0"):
        check_mode("window", 0)


@pytest.mark.parametrize(
    ("mode", "window", "expected"),
    [
        ("mem1", 2, 20 + 14 + 4),
        ("none", 2, 20 + 10 + 4),
        ("window", 3, 20 + 3 * 14 + 4),
        ("full", 2, 20 + 5 * 14 + 4),
    ],
)
def test_the_longest_context_of_six_turns_of_4_tokens_and_replies_of_10(mode, window, expected):
    assert longest_context(20, 6, 4, 10, mode, window) == expected
    assert longest_context(20, 1, 4, 10, mode, window) == 24  # a single turn sees the prompt alone
