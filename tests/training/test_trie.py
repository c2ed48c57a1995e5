"""Recorded contexts in one row: literal cases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lightning_mem1.context.contexts import Contexts, contexts, drift
from lightning_mem1.context.origins import token_origins
from lightning_mem1.evaluation.report.layout_plot import visible
from lightning_mem1.policy.blocks import Block
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.training.layouts.microbatches import num_tokens
from lightning_mem1.training.layouts.trie import trie
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task


@pytest.fixture(autouse=True)
def every_beginning(monkeypatch):
    """One token is worth sharing, so that cases stay small."""
    monkeypatch.setattr("lightning_mem1.training.layouts.trie.SHORTEST", 1)


def recorded(prompt, *turns):
    """Turns of (context, action, information)."""
    played = [Turn(action, [-1.0] * len(action), reply, context_ids=context) for context, action, reply in turns]
    return Trajectory(task(), prompt, played, StopReason.DONE)


# prompt 1 2; a turn that goes on, a fork of the same context, and notes that replace the history
AGENT = recorded(
    [1, 2],
    ([1, 2, 3], [10, 11], [4]),
    ([1, 2, 3, 10, 11, 4], [12], []),
    ([1, 2, 3, 10, 11, 4], [13], []),
    ([1, 2, 5, 6], [10], []),
)


def test_a_recorded_context_is_the_one_that_was_sent():
    assert contexts(AGENT, "recorded") == [turn.context_ids for turn in AGENT.turns]
    assert Contexts("recorded").lengths(AGENT) == [3, 6, 6, 4]


def test_what_contexts_begin_with_alike_is_in_the_row_once():
    packed = trie([AGENT], Contexts("recorded"))
    assert packed.ids == [1, 2, 3, 10, 11, 4, 12, 13, 5, 6, 10]
    assert packed.blocks == [
        Block(0, 2),
        Block(2, 4, 0),
        Block(6, 1, 1),
        Block(7, 1, 1),
        Block(8, 3, 0),
    ]
    assert num_tokens(AGENT, "tree", "recorded") == 11
    assert num_tokens(AGENT, "rows", "recorded") == 5 + 7 + 7 + 5


def test_every_action_token_is_predicted_from_the_end_of_its_own_context():
    batch = collate([AGENT], "tree", "recorded")
    assert batch.action_ids.tolist() == [10, 11, 12, 13, 10]
    assert batch.predict_index.tolist() == [2, 3, 5, 5, 9]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 6, 6, 2, 3, 4]]
    assert batch.turn_index.tolist() == [0, 0, 1, 2, 3]


def test_two_trajectories_share_what_they_have_in_common_down_to_their_turns():
    other = recorded([1, 2], ([1, 2, 3], [10, 99], []))
    packed = trie([AGENT, other], Contexts("recorded"))
    assert packed.ids == [1, 2, 3, 10, 11, 4, 12, 13, 99, 5, 6, 10]
    assert packed.blocks[1:3] == [Block(2, 2, 0), Block(4, 2, 1)]  # 3 10 | 11 4
    assert [(span.trajectory, span.turn) for span in packed.spans] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
    assert [each.tolist() for each in packed.predicting()] == [[2, 3], [5], [5], [10], [2, 3]]


def test_the_page_knows_what_of_a_recorded_context_an_earlier_turn_had():
    # places in 1 2 | 10 11 4 | 12 | 13 | 10; the agent's own text is nobody's
    assert token_origins(AGENT, "recorded") == [
        [0, 1, None],
        [0, 1, None, 2, 3, 4],
        [0, 1, None, 2, 3, 4],
        [0, 1, None, None],
    ]


def test_the_picture_of_the_tree_is_that_of_the_shared_row():
    drawn = visible(AGENT, "tree", "recorded")
    assert [[int(kind > 0) for kind in row] for row in drawn] == [
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 0, 1, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0],
        [1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1],
    ]
    assert drawn.diagonal().tolist() == [1, 1, 2, 4, 4, 3, 4, 4, 2, 2, 4]  # prompt, text, scored, information


def test_contexts_that_do_not_begin_with_the_prompt_are_named():
    with pytest.raises(ValueError, match=r"expected its 2 ids before turn 0 of 'tiny/0', got others; record what"):
        contexts(recorded([1, 2], ([1, 3], [4], [])), "recorded")


def test_a_turn_after_no_token_at_all_is_refused():
    with pytest.raises(ValueError, match="turn 0 of 'tiny/0' has no context: expected at least one token"):
        collate([recorded([], ([], [4], []))], "tree", "recorded")


def test_the_single_copy_cannot_hold_what_an_agent_wrote_itself():
    with pytest.raises(ValueError, match="layout stitched cannot express memory mode 'recorded'"):
        collate([AGENT], "stitched", "recorded")


def test_a_message_that_was_not_matched_counts_as_drift_once_a_turn():
    agent = recorded([1], ([1, 2], [3], []), ([1, 9], [4], []))
    assert drift(agent, "recorded") == 0
    agent.turns[1].num_unmatched = 2
    assert drift(agent, "recorded") == 1


def test_the_page_on_layouts_draws_what_each_token_sees():
    names = {1: "P", 2: "Q", 10: "A0", 4: "B", 11: "A1", 12: "A2", 6: "R", 13: "A3", 14: "A4"}
    asked = ([1, 2], [1, 2, 10, 4], [1, 2, 10, 4], [1, 6], [1, 2])
    agent = recorded([1], *((context, [10 + number if number else 10], []) for number, context in enumerate(asked)))
    packed, lines = trie([agent], Contexts("recorded")), []
    for token, row in zip(packed.ids, visible(agent, "tree", "recorded") > 0, strict=True):
        marks = ["1" if sees else "." for sees in row]
        lines.append(f"{names[token]:2} " + " ".join(marks).rstrip(" ."))
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "layouts.md").read_text()
    drawn = page.partition("P  1                   the prompt")
    block = (drawn[1] + drawn[2].partition("```")[0]).strip().splitlines()
    assert [re.match(r"\w+ +[1. ]*[1.]", line)[0].rstrip() for line in block] == lines
