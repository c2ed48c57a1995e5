import pytest

from lightning_mem1.context.contexts import act_number, context_ids, contexts, largest_by_act, next_kind
from lightning_mem1.context.modes import MODES
from lightning_mem1.context.modes.amem import Amem
from lightning_mem1.context.modes.window import Window
from lightning_mem1.context.settings import memory_mode
from lightning_mem1.rollout.budget import longest_context
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task

P = [1, 2]
A0, I0, A1, I1, A2 = [10, 11], [20], [12], [21, 22], [13]
TURNS = [Turn(A0, [0.0] * 2, I0), Turn(A1, [0.0], I1)]


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ("mem1", [1, 2, 12, 21, 22]),
        ("full", [1, 2, 10, 11, 20, 12, 21, 22]),
        ("window", [1, 2, 10, 11, 20, 12, 21, 22]),
        (Window(1), [1, 2, 12, 21, 22]),
        ("none", [1, 2, 21, 22]),
        ("summary", [1, 2, 12, 21, 22]),  # a memory is due, and there is none yet
        (Amem(1), [1, 2, 10, 11, 20, 12, 21, 22]),
    ],
)
def test_the_next_context_holds_what_the_mode_keeps(memory, expected):
    assert context_ids(P, TURNS, memory) == expected


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


def test_a_memory_written_apart_has_a_context_of_its_own_and_stands_before_the_reply_that_is_acted_on():
    m, M0, M1 = [30], [31, 32], [33]  # the opening, and what was written behind it
    first, second = (Turn(ids, [0.0] * len(ids), kind="memory", opening_ids=m) for ids in (M0, M1))
    turns = [TURNS[0], first, TURNS[1], second, Turn(A2, [0.0])]
    found = contexts(Trajectory(task(), P, turns, StopReason.DONE), "summary")
    assert found == [
        P,
        [*P, *A0, *I0, *m],
        [*P, *m, *M0, *I0],
        [*P, *m, *M0, *A1, *I1, *m],
        [*P, *m, *M1, *I1],
    ]
    assert [next_kind(turns[:t], "summary") for t in range(5)] == ["act", "memory", "act", "memory", "act"]
    assert {next_kind(turns[:t], mode) for mode in MODES for t in range(5) if mode != "summary"} == {"act"}


def test_turns_are_counted_by_acts_and_the_memory_after_one_counts_to_it():
    turns = [Turn(A0, [0.0] * 2, I0), Turn([5], [0.0], kind="memory"), Turn(A1, [0.0])]
    trajectory = Trajectory(task(), P, turns, StopReason.DONE)
    assert trajectory.acts == [turns[0], turns[2]]
    assert [act_number(trajectory, turn) for turn in range(3)] == [0, 0, 1]
    assert largest_by_act(trajectory, [5, 9, 7]) == [9, 7] and largest_by_act(trajectory, [9, 5, 7]) == [9, 7]


def test_amem_retrieves_the_notes_that_have_to_do_with_the_last_turn_in_the_order_of_time():
    red, blue, both, last = [30, 7, 31], [30, 8, 32], [30, 7, 8], [30, 7, 40]  # 30 is in all; 7 is red, 8 is blue
    turns = [Turn(ids[:1], [0.0], ids[1:]) for ids in (red, blue, both, last)]
    assert context_ids(P, turns, Amem(1)) == [*P, *both, *last]  # 7 and 8 are known words, 31 is one of red's own
    assert context_ids(P, turns, Amem(2)) == [*P, *red, *both, *last]
    assert context_ids(P, turns[:3], Amem(1)) == [*P, *blue, *both]  # equally near: the newer one
    assert context_ids(P, turns[:1], Amem(1)) == [*P, *red]


def test_amem_goes_by_the_embeddings_of_a_sentence_encoder_where_turns_have_them():
    near, far, last = (0.6, 0.8), (1.0, 0.0), (0.0, 1.0)
    turns = [Turn([ids], [0.0], [9], embedding=e) for ids, e in ((5, near), (6, far), (7, last))]
    assert context_ids(P, turns, Amem(1)) == [*P, 5, 9, 7, 9]
    turns[1].embedding = ()  # without them all the ids are what counts, and here the newer note
    assert context_ids(P, turns, Amem(1)) == [*P, 6, 9, 7, 9]


def test_an_unknown_mode_names_the_modes_there_are():
    words = "mem1, full, window, none, summary, amem, compaction, masked, fold, multiscale, edit, recall, recorded"
    with pytest.raises(ValueError, match=f"expected one of {words}, got 'mem2'; set model.memory"):
        memory_mode("mem2")


def test_a_window_of_zero_turns_is_refused():
    with pytest.raises(ValueError, match="expected at least 1, got 0"):
        memory_mode({"mode": "window", "window": 0})


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ("mem1", 20 + 14 + 4),
        ("none", 20 + 10 + 4),
        (Window(3), 20 + 3 * 14 + 4),
        ("full", 20 + 5 * 14 + 4),
        ("summary", 20 + 4 + 14 + 4),
        (Amem(3), 20 + 4 * 14 + 4),
    ],
)
def test_the_longest_context_of_six_turns_of_4_tokens_and_replies_of_10(memory, expected):
    assert longest_context(20, 6, 4, 10, memory) == expected
    assert longest_context(20, 1, 4, 10, memory) == 24  # a single turn sees the prompt alone


def test_the_longest_context_of_a_memory_written_apart_holds_two_openings():
    assert longest_context(20, 6, 4, 10, "summary", opening_tokens=1) == 20 + 5 + 14 + 5
    assert longest_context(20, 2, 4, 10, "summary", opening_tokens=1) == 20 + 14 + 5  # none was written before
    assert longest_context(20, 6, 4, 10, "mem1", opening_tokens=1) == 38


def test_what_opens_each_turn_counts_in_its_own_context_and_in_later_ones():
    assert longest_context(20, 6, 4, 10, "mem1", turn_opening_tokens=2) == 20 + (2 + 14) + 2 + 4
    assert longest_context(20, 6, 4, 10, "full", turn_opening_tokens=2) == 20 + 5 * (2 + 14) + 2 + 4
    assert longest_context(20, 1, 4, 10, "mem1", turn_opening_tokens=2) == 20 + 2 + 4


def test_a_mode_is_spelled_with_the_settings_that_are_not_as_usual_in_characters_that_loggers_take():
    assert [memory_mode(word).spelled for word in ("mem1", "window", "recall")] == ["mem1", "window", "recall"]
    assert (
        memory_mode({"mode": "recall", "over": "compaction", "budget": 300}).spelled
        == "recall over compaction budget 300"
    )
    assert memory_mode({"mode": "masked", "note": "<gone, all>"}).spelled == "masked note _gone_ all_"
    assert Window(2).spelled != Window(10).spelled
