import pytest

from lightning_mem1.layouts import ScoredSpan, check_layout, num_tokens, rows, tree
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task

P = [1, 2]
A0, I0, A1, I1, A2 = [10, 11], [20], [12], [21, 22], [13, 14]


def trajectory(prompt=None, last=A2):
    turns = [Turn(A0, [0.0] * 2, I0), Turn(A1, [0.0], I1), Turn(last, [0.0] * len(last))]
    return Trajectory(task(), prompt or P, turns, StopReason.DONE)


def test_tree_appends_a_turn_to_the_segment_it_continues_and_copies_the_context_otherwise():
    forest = tree([trajectory()])
    assert forest.prompts == [P]
    assert [s.ids for s in forest.segments] == [A0 + I0 + A1, A1 + I1 + A2]
    assert [s.spans for s in forest.segments] == [
        [ScoredSpan(0, 0, 0, 2), ScoredSpan(0, 1, 3, 1)],
        [ScoredSpan(0, 2, 3, 2)],
    ]


def test_tree_keeps_a_full_history_in_a_single_segment():
    forest = tree([trajectory()], "full")
    assert [s.ids for s in forest.segments] == [A0 + I0 + A1 + I1 + A2]
    assert [span.start for span in forest.segments[0].spans] == [0, 3, 6]


def test_tree_shows_only_information_when_nothing_is_remembered():
    assert [s.ids for s in tree([trajectory()], "none").segments] == [A0, I0 + A1, I1 + A2]


def test_trajectories_of_a_group_share_their_prompt():
    forest = tree([trajectory(), trajectory(last=[15]), trajectory(prompt=[3])])
    assert forest.prompts == [P, [3]]
    assert [s.prompt for s in forest.segments] == [0, 0, 0, 0, 1, 1]


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
    forest = tree([Trajectory(task(), P, turns, StopReason.DONE)])
    assert [s.ids for s in forest.segments] == [[7, 8], [8, 9]]


def test_every_action_token_is_scored_exactly_once_in_both_layouts():
    for segments in (tree([trajectory()]).segments, rows([trajectory()])):
        scored = [s.ids[span.start : span.start + span.length] for s in segments for span in s.spans]
        assert scored == [A0, A1, A2]


def test_tree_needs_fewer_tokens_than_rows():
    assert num_tokens(trajectory(), "tree") == 2 + 4 + 5
    assert num_tokens(trajectory(), "rows") == 4 + 6 + 7


def test_an_unknown_layout_names_the_layouts_there_are():
    with pytest.raises(ValueError, match="expected one of tree, rows, got 'trees'; set model.layout"):
        check_layout("trees")
