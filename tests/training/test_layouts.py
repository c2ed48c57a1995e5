import pytest

from lightning_mem1.context.modes import MODES
from lightning_mem1.context.modes.amem import Amem
from lightning_mem1.context.modes.window import Window
from lightning_mem1.training.layouts.microbatches import num_tokens
from lightning_mem1.training.layouts.single_copy import Run, official, stitched
from lightning_mem1.training.layouts.spans import ScoredSpan, check_layout
from lightning_mem1.training.layouts.tree import rows, segments
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task

P = [1, 2]
A0, I0, A1, I1, A2 = [10, 11], [20], [12], [21, 22], [13, 14]


def trajectory(prompt=None, last=A2):
    turns = [Turn(A0, [0.0] * 2, I0), Turn(A1, [0.0], I1), Turn(last, [0.0] * len(last))]
    return Trajectory(task(), prompt or P, turns, StopReason.DONE)


def test_tree_appends_a_turn_to_the_segment_it_continues_and_copies_the_context_otherwise():
    laid = segments([trajectory()])
    assert [s.ids for s in laid] == [A0 + I0 + A1, A1 + I1 + A2]
    assert [s.spans for s in laid] == [
        [ScoredSpan(0, 0, 0, 2), ScoredSpan(0, 1, 3, 1)],
        [ScoredSpan(0, 2, 3, 2)],
    ]


def test_tree_keeps_a_full_history_in_a_single_segment():
    (whole,) = segments([trajectory()], "full")
    assert whole.ids == A0 + I0 + A1 + I1 + A2
    assert [span.start for span in whole.spans] == [0, 3, 6]


def test_tree_shows_only_information_when_nothing_is_remembered():
    assert [s.ids for s in segments([trajectory()], "none")] == [A0, I0 + A1, I1 + A2]


def staged():
    """The same with a memory written after each of the first two turns, opened by 30."""
    memories = [Turn([ids], [0.0], kind="memory", opening_ids=[30]) for ids in (31, 32)]
    first, second, last = trajectory().turns
    return Trajectory(task(), P, [first, memories[0], second, memories[1], last], StopReason.DONE)


def test_tree_lays_out_memories_written_apart_where_they_were_written_and_copies_them_with_their_openings():
    m, M0, M1 = [30], [31], [32]
    assert [(s.ids, s.spans) for s in segments([staged()], "summary")] == [
        (A0 + I0 + m + M0, [ScoredSpan(0, 0, 0, 2), ScoredSpan(0, 1, 4, 1)]),
        (m + M0 + I0 + A1, [ScoredSpan(0, 2, 3, 1)]),
        (m + M0 + A1 + I1 + m + M1, [ScoredSpan(0, 3, 6, 1)]),
        (m + M1 + I1 + A2, [ScoredSpan(0, 4, 4, 2)]),
    ]
    assert [line.ids for line in rows([staged()], "summary")] == [
        P + A0,
        P + A0 + I0 + m + M0,
        P + m + M0 + I0 + A1,
        P + m + M0 + A1 + I1 + m + M1,
        P + m + M1 + I1 + A2,
    ]
    assert num_tokens(staged(), "tree", "summary") == 2 + 5 + 4 + 7 + 6


def test_a_single_copy_holds_memories_written_apart_behind_the_replies_they_are_made_of():
    (copy,) = stitched([staged()], "summary")
    assert copy.ids == P + A0 + I0 + [30, 31] + A1 + I1 + [30, 32] + A2
    assert copy.runs[3] == Run(5, 2, [0, 1, 2, 3, 4])  # the opening and M0
    assert sorted(copy.runs[4].sees) == [0, 1, 4, 5, 6]  # A1: P, I0, M0
    assert sorted(copy.runs[6].sees) == [0, 1, 5, 6, 7, 8, 9]  # M1: P, M0, A1, I1
    assert copy.spans[1] == ScoredSpan(0, 1, 6, 1) and copy.spans[4] == ScoredSpan(0, 4, 12, 2)


def test_rows_hold_one_whole_context_per_turn():
    lines = rows([trajectory()])
    assert [line.ids for line in lines] == [P + A0, P + A0 + I0 + A1, P + A1 + I1 + A2]
    assert [line.spans for line in lines] == [
        [ScoredSpan(0, 0, 2, 2)],
        [ScoredSpan(0, 1, 5, 1)],
        [ScoredSpan(0, 2, 5, 2)],
    ]


def test_empty_information_and_one_token_actions_are_laid_out_too():
    turns = [Turn([7], [0.0], []), Turn([8], [0.0], []), Turn([9], [0.0])]
    laid = segments([Trajectory(task(), P, turns, StopReason.DONE)])
    assert [s.ids for s in laid] == [[7, 8], [8, 9]]


def test_a_single_copy_holds_every_token_once_and_says_what_each_run_of_them_sees():
    (copy,) = stitched([trajectory()])
    assert (copy.ids, copy.prompt_length) == (P + A0 + I0 + A1 + I1 + A2, 2)
    assert copy.runs == [
        Run(0, 2),  # P
        Run(2, 2, [0, 1]),  # A0
        Run(4, 1, [0, 1, 2, 3]),  # I0
        Run(5, 1, [0, 1, 2, 3, 4]),  # A1
        Run(6, 2, [0, 1, 5]),  # I1: its turn's action is out, so A0 and I0 are gone
        Run(8, 2, [0, 1, 5, 6, 7]),  # A2
    ]
    assert copy.spans == [ScoredSpan(0, 0, 2, 2), ScoredSpan(0, 1, 5, 1), ScoredSpan(0, 2, 8, 2)]


def test_what_a_single_copy_shows_follows_the_memory_mode():
    narrow = {**MODES, "window": Window(1), "amem": Amem(1)}
    sees = {mode: [run.sees for run in stitched([trajectory()], memory)[0].runs] for mode, memory in narrow.items()}
    assert sees["window"] == sees["mem1"] == sees["summary"]  # nothing was written apart
    assert sees["amem"] == sees["full"]
    assert [*map(list, sees["full"])] == [[*range(n)] for n in (0, 2, 4, 5, 6, 8)]
    assert sees["none"] == [(), [0, 1], [0, 1], [0, 1, 4], [0, 1], [0, 1, 6, 7]]


def recap(turns):
    return [[99]] if turns else []


def test_a_memory_mode_that_writes_its_own_tokens_has_no_single_copy():
    with pytest.raises(ValueError, match=r"memory mode '[\w.]*recap': .* in 'tiny/0'; set model.layout tree"):
        stitched([trajectory()], recap)


def test_the_official_copy_hides_earlier_internal_states_and_leaves_information_to_itself():
    (copy,) = official([trajectory()], state_end=lambda ids: 1)
    assert copy.ids == P + A0 + I0 + A1 + I1 + A2
    assert copy.runs == [
        Run(0, 2),  # P
        Run(2, 2, [0, 1]),  # A0
        Run(4, 1, []),  # I0
        Run(5, 1, [0, 1, 3, 4]),  # A1: the second token of A0, and I0
        Run(6, 2, []),  # I1
        Run(8, 2, [0, 1, 6, 7]),  # A2: A1 was all state
    ]


def test_a_trajectory_without_a_turn_has_no_single_copy():
    none = Trajectory(task(), P, [], StopReason.ERROR)
    assert [copy.spans[0].trajectory for copy in stitched([none, trajectory()])] == [1]


def test_every_action_token_is_scored_exactly_once_in_every_layout():
    laid = [segments([trajectory()]), rows([trajectory()]), stitched([trajectory()]), official([trajectory()], len)]
    for each in laid:
        scored = [s.ids[span.start : span.start + span.length] for s in each for span in s.spans]
        assert scored == [A0, A1, A2]


def test_tree_needs_fewer_tokens_than_rows():
    assert num_tokens(trajectory(), "tree") == 2 + 4 + 5
    assert num_tokens(trajectory(), "rows") == 4 + 6 + 7


def test_a_single_copy_counts_each_token_once_and_leaves_out_what_no_context_holds():
    assert num_tokens(trajectory(), "stitched") == num_tokens(trajectory(), "official") == 2 + 3 + 3 + 2
    outgrown = trajectory()
    outgrown.turns[-1].information_ids = [30, 31]  # the episode ended for want of room
    assert num_tokens(outgrown, "stitched") == 10
    assert stitched([outgrown])[0].ids == stitched([trajectory()])[0].ids


def test_an_unknown_layout_names_the_layouts_there_are():
    with pytest.raises(
        ValueError, match="expected one of tree, rows, stitched, official, got 'trees'; set model.layout"
    ):
        check_layout("trees")


def test_the_official_layout_is_of_one_memory_mode():
    with pytest.raises(ValueError, match="expected mem1, got 'full'; set model.memory or model.layout"):
        check_layout("official", "full")
