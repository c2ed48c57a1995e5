"""Contexts are derived once and follow their trajectory; a mode that fails or asks for nonsense is one line."""

import copy
import gc
import pickle
from collections import Counter
from dataclasses import dataclass

import pytest

from lightning_mem1.context.contexts import Contexts, context_ids, contexts, drift, next_kind
from lightning_mem1.context.memory import MemoryMode, whole
from lightning_mem1.context.origins import token_origins
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.training.layouts.microbatches import num_tokens, split_by_tokens
from lightning_mem1.training.layouts.tree import rows, segments
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task

ASKED: Counter[int] = Counter()  # number of turns so far -> how often a context was derived for them


@dataclass(frozen=True)
class Counting(MemoryMode):
    """The last two turns; counts how often it is asked."""

    def context(self, turns):
        ASKED[len(turns)] += 1
        return whole(turns[-2:])


def played(number: int = 0) -> Trajectory:
    turns = [Turn([10 + t, 11 + t], [0.0] * 2, [20 + t]) for t in range(3)]
    return Trajectory(task(number), [1, 2], turns, StopReason.DONE)


@pytest.fixture(autouse=True)
def nothing_asked():
    ASKED.clear()


def test_layouts_counts_lengths_origins_and_drift_ask_the_mode_once_for_each_turn():
    trajectories, known = [played(0), played(1)], Contexts(Counting())
    for trajectory in trajectories:
        assert known.lengths(trajectory) == [2, 5, 8]
        assert token_origins(trajectory, known)[2] == [0, 1, 2, 3, 4, 5, 6, 7]
        assert drift(trajectory, known) == 0
        assert [num_tokens(trajectory, layout, known) for layout in ("tree", "rows", "stitched")] == [10, 21, 10]
    for _ in range(3):
        segments(trajectories, known), rows(trajectories, known)
        split_by_tokens(trajectories, 12, "tree", known)
        for layout in ("tree", "rows", "stitched"):
            collate(trajectories, layout, known)
    assert ASKED == {0: 2, 1: 2, 2: 2}  # of two trajectories


def test_without_contexts_at_hand_each_function_derives_its_own():
    trajectory = played()
    assert contexts(trajectory, Counting())[1] == [1, 2, 10, 11, 20]
    collate([trajectory], "tree", Counting())
    assert ASKED == {0: 2, 1: 2, 2: 2}


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.turns.append(Turn([9], [0.0])),
        lambda t: t.turns.pop(),
        lambda t: t.turns[0].information_ids.append(7),
        lambda t: setattr(t.turns[0], "information_ids", [7]),
        lambda t: setattr(t.turns[0], "retried", True),
        lambda t: setattr(t, "prompt_ids", [3]),
    ],
)
def test_a_trajectory_with_other_turns_has_other_contexts(change):
    trajectory, known = played(), Contexts(Counting())
    before = [context.ids for context in known.of(trajectory)]
    change(trajectory)
    after = [context.ids for context in known.of(trajectory)]
    assert after == contexts(trajectory, Counting()) != before


def test_an_id_that_is_changed_in_place_is_seen_where_it_was_derived_before():
    trajectory, known = played(), Contexts(Counting())
    known.of(trajectory)
    trajectory.turns[0].information_ids[0] = 7
    assert known.of(trajectory)[1].ids == [1, 2, 10, 11, 7]


def test_a_context_that_grows_with_the_history_is_made_of_the_turns_own_lists():
    trajectory = played()
    last = Contexts("full").of(trajectory)[2]
    own = [ids for turn in trajectory.turns[:2] for ids in (turn.action_ids, turn.information_ids)]
    assert [id(run) for run in last.runs] == [id(ids) for ids in own] and last.prompt is trajectory.prompt_ids


def test_the_first_turns_of_a_trajectory_have_the_contexts_that_are_known():
    trajectory, known = played(), Contexts(Counting())
    part = known.first(trajectory, 2)
    assert known.lengths(part) == [2, 5] and part.turns == trajectory.turns[:2]
    assert ASKED == {0: 1, 1: 1, 2: 1}


def test_contexts_are_forgotten_with_their_trajectory_and_never_copied_or_pickled():
    trajectory, known = played(), Contexts(Counting())
    known.of(trajectory)
    for other in (copy.deepcopy(known), pickle.loads(pickle.dumps(known))):
        assert other.memory == known.memory and not other._known
    assert "_known" not in vars(pickle.loads(pickle.dumps(trajectory)))
    assert len(known._known) == 1
    del trajectory
    gc.collect()
    assert not known._known


def test_a_layout_is_the_same_however_a_mode_cuts_its_runs():
    trajectory = played()
    for cut in (
        lambda turns: [turn.ids + turn.information_ids for turn in turns],
        lambda turns: [[each] for turn in turns for each in (*turn.ids, *turn.information_ids)],
        lambda turns: (tuple(ids) for ids in whole(turns)),
    ):
        assert segments([trajectory], cut) == segments([trajectory], "full")
        assert rows([trajectory], cut) == rows([trajectory], "full")
        assert token_origins(trajectory, cut) == token_origins(trajectory, "full")


def test_a_mode_that_fails_is_named_with_its_line():
    def failing(turns):
        return whole([turns[1]])

    with pytest.raises(ValueError, match=r"memory mode '.*failing' failed after 1 turns: IndexError: .*test_contexts"):
        context_ids([1], played().turns[:1], failing)

    class OldDue(MemoryMode):
        def context(self, turns):
            return []

        def due(self, turns):
            return "act"

    with pytest.raises(
        ValueError, match=r"OldDue' failed after 0 turns: TypeError: .*due\(\) takes 2 positional .*; fix"
    ):
        next_kind([], OldDue())
    with pytest.raises(ValueError, match=r"TypeError: .*, line \d+\); fix it") as caught:
        context_ids([1], [], lambda turns: whole(3))
    assert "test_contexts.py" in str(caught.value) and "memory.py" not in str(caught.value)  # the caller's own line


@pytest.mark.parametrize(
    ("rule", "got"), [(lambda turns: [1, 2], "got 1; fix"), (lambda turns: None, "TypeError: 'NoneType' object is not")]
)
def test_what_is_no_list_of_runs_is_named(rule, got):
    with pytest.raises(ValueError, match=got):
        context_ids([1], [], rule)


class Odd(MemoryMode):
    """Asks for what it was made with."""

    def __init__(self, kind):
        object.__setattr__(self, "kind", kind)

    def context(self, turns):
        return []

    def due(self, turns, prompt_tokens=0):
        return self.kind


def test_a_kind_of_call_that_there_is_none_of_is_one_line():
    act, memory = Turn([1], [0.0]), Turn([2], [0.0], kind="memory")
    assert next_kind([act], Odd("memory")) == "memory" and next_kind([act, memory], Odd("act")) == "act"
    with pytest.raises(ValueError, match="asks for no kind of call: expected act or memory, got 'nap'; fix it"):
        next_kind([act], Odd("nap"))
    for turns, got in (([], "got no turn"), ([act, memory], "got a memory")):
        with pytest.raises(ValueError, match=f"expected an act before each, {got}; fix its due"):
            next_kind(turns, Odd("memory"))
