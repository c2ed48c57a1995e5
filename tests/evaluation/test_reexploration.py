from lightning_mem1.context.contexts import Contexts
from lightning_mem1.context.modes.masked import Masked
from lightning_mem1.context.modes.window import Window
from lightning_mem1.context.tags import Tags
from lightning_mem1.evaluation.measures import cost
from lightning_mem1.evaluation.reexploration import recalls, repeated_actions
from lightning_mem1.evaluation.view import View
from lightning_mem1.types import Directive, StopReason, Trajectory, Turn
from tiny import task


def acted(actions, invalid=(), silent=()):
    turns = [
        Turn([10 * n], [0.0], [] if n in silent else [10 * n + 1], action, valid=n not in invalid, note_ids=[9])
        for n, action in enumerate(actions, start=1)
    ]
    return Trajectory(task(), [1], turns, StopReason.DONE)


def repeated(actions, mode, **other):
    return repeated_actions(acted(actions, **other), Contexts(mode))


def test_an_action_counts_when_no_reply_to_it_is_in_view_any_more():
    assert repeated("abaa", "mem1") == 1  # the fourth sees the reply to the third
    assert repeated("abab", "mem1") == 2
    assert repeated("abab", "full") == repeated("abcd", "mem1") == repeated("aaaa", "mem1") == 0
    assert repeated("abab", Window(2)) == 0 and repeated("abca", Window(2)) == 1


def test_a_note_in_place_of_a_reply_is_no_reply():
    assert repeated("abca", Masked(2)) == 1 and repeated("abca", Masked(3)) == 0


def test_what_was_deleted_is_out_of_view_from_then_on():
    trajectory = acted(["a", "a", "delete[0]", "a"])
    trajectory.turns[2].directive = Directive("delete", (0, 1))
    assert repeated_actions(trajectory, Contexts("edit")) == 1  # the last


def test_what_was_not_carried_out_or_not_replied_to_cannot_be_repeated():
    assert repeated("abab", "mem1", invalid=(1, 2)) == 0
    assert repeated("abab", "mem1", silent=(1, 2)) == 0
    assert repeated([None, "b", None], "mem1") == 0
    assert repeated("abab", "mem1", invalid=(3, 4)) == 2  # that they fail now does not matter


def test_calls_that_write_the_memory_repeat_nothing():
    trajectory = acted("aba")
    trajectory.turns.insert(1, Turn([5], [0.0], kind="memory", opening_ids=[6]))
    trajectory.turns.insert(3, Turn([5], [0.0], kind="memory", opening_ids=[6]))
    assert repeated_actions(trajectory, Contexts("summary")) == 1


def test_recalls_are_counted_over_acts():
    trajectory = acted("abcd")
    trajectory.turns[2].directive = Directive("recall", (0,))
    trajectory.turns[3].directive = Directive("delete", (0,))
    assert recalls(trajectory) == [0.0, 0.0, 1.0, 0.0]
    numbers = cost(trajectory, View(lambda ids: "", Tags(), "recall"))
    assert (numbers["repeated_actions"], numbers["recall_rate"]) == ([0.0], [0.0, 0.0, 1.0, 0.0])
