"""The contexts of four turns in each memory mode that lets something leave, spelled out, and what is asked in vain."""

import pytest

from lightning_mem1.context.contexts import asked, context_ids, contexts, next_kind
from lightning_mem1.context.modes.compaction import Compaction
from lightning_mem1.context.modes.fold import Fold
from lightning_mem1.context.modes.masked import Masked
from lightning_mem1.context.modes.recall import Recall
from lightning_mem1.context.settings import memory_mode
from lightning_mem1.context.tags import QA_TAGS, ParsedTurn, Tags
from lightning_mem1.context.turn_numbers import chosen, read_ranges, write_numbers
from lightning_mem1.rollout.budget import longest_context
from lightning_mem1.types import Directive, StopReason, Trajectory, Turn
from tiny import task

P = [1, 2]
A0, A1, A2, A3 = [10, 11], [12, 13], [14, 15], [16, 17]
I0, I1, I2, I3 = [20], [21], [22], [23]
N, m, M0, M1 = [90], [30], [31, 32], [33]


def four(directives=None, state_tokens=1):
    """Four turns of two tokens, the first of which is the state, with replies of one; some did something to memory."""
    turns = [Turn(a, [0.0] * 2, i) for a, i in zip((A0, A1, A2, A3), (I0, I1, I2, I3), strict=True)]
    for number, turn in enumerate(turns):
        turn.directive = (directives or {}).get(number)
        turn.state_tokens, turn.note_ids = state_tokens, N
    return turns


def after(turns, mode):
    """The contexts after one turn, after two, three and four."""
    return [context_ids(P, turns[: number + 1], mode) for number in range(4)]


def parsed(action="click[red]", state=""):
    return ParsedTurn(state, action)


def test_masked_puts_a_note_in_place_of_the_replies_to_older_turns():
    assert after(four(), Masked(window=2)) == [
        [*P, *A0, *I0],
        [*P, *A0, *I0, *A1, *I1],
        [*P, *A0, *N, *A1, *I1, *A2, *I2],
        [*P, *A0, *N, *A1, *N, *A2, *I2, *A3, *I3],
    ]
    assert context_ids(P, four(), Masked(window=10)) == context_ids(P, four(), "full")


def test_masked_puts_no_note_where_there_was_no_reply():
    turns = four()
    turns[0].information_ids = []
    assert context_ids(P, turns, Masked(window=1)) == [*P, *A0, *A1, *N, *A2, *N, *A3, *I3]


def test_fold_drops_a_branch_when_it_returns_and_keeps_the_turns_that_opened_and_closed_it():
    turns = four({1: Directive("branch"), 3: Directive("return")})
    assert after(turns, "fold") == [
        [*P, *A0, *I0],
        [*P, *A0, *I0, *A1, *I1],
        [*P, *A0, *I0, *A1, *I1, *A2, *I2],
        [*P, *A0, *I0, *A1, *I1, *A3, *I3],
    ]
    assert [Fold().aside(turns[:number]) for number in range(5)] == [False, False, True, True, False]


def test_fold_branches_again_after_a_return():
    names = ("branch", "return", "branch", "return")
    turns = four({number: Directive(name) for number, name in enumerate(names)})
    more = [*turns, Turn([18], [0.0], [24], directive=Directive("branch")), Turn([19], [0.0], [25])]
    assert context_ids(P, turns[:3], "fold") == [*P, *A0, *I0, *A1, *I1, *A2, *I2]
    assert context_ids(P, more, "fold") == [*P, *A0, *I0, *A1, *I1, *A2, *I2, *A3, *I3, 18, 24, 19, 25]


def test_multiscale_rewrites_the_latest_turn_alone_or_several_blocks_as_one():
    turns = four({1: Directive("fold", (0,)), 2: Directive("fold", (1,)), 3: Directive("fold", (0, 1, 2))})
    assert after(turns, "multiscale") == [
        [*P, *A0, *I0],
        [*P, *A1, *I1],  # its state is block 0
        [*P, 12, *A2, *I2],  # block 0, block 1 and the rest of turn 2
        [*P, *A3, *I3],
    ]


def test_multiscale_keeps_a_turn_that_is_in_no_block_and_puts_a_block_where_its_turns_were():
    turns = four({1: Directive("fold", (0,)), 3: Directive("fold", (0, 1))})
    assert context_ids(P, turns[:3], "multiscale") == [*P, *A1, *I1, *A2, *I2]  # turn 2 rewrote nothing
    assert context_ids(P, turns, "multiscale") == [*P, 16, *A2, *I2, 17, *I3]


def test_multiscale_where_every_turn_rewrites_everything_is_mem1():
    turns = four({number: Directive("fold", tuple(range(number))) for number in (1, 2, 3)})
    assert after(turns, "multiscale") == after(turns, "mem1")


def test_multiscale_keeps_the_opening_of_a_turn_with_its_state():
    turns = four({1: Directive("fold", (0,)), 2: Directive("fold", (1,))})
    for turn in turns:
        turn.opening_ids = m
    assert context_ids(P, turns[:3], "multiscale") == [*P, *m, 12, *m, *A2, *I2]
    assert context_ids(P, turns[:1], "multiscale") == [*P, *m, *A0, *I0]


def test_edit_drops_the_turns_that_were_deleted_from_the_deletion_on():
    turns = four({2: Directive("delete", (0,)), 3: Directive("delete", (1, 2))})
    assert after(turns, "edit") == [
        [*P, *A0, *I0],
        [*P, *A0, *I0, *A1, *I1],
        [*P, *A1, *I1, *A2, *I2],
        [*P, *A3, *I3],  # what a deleted turn deleted stays away
    ]


def test_recall_has_the_contexts_of_the_mode_below_and_what_it_fetched_is_a_reply():
    turns = four({2: Directive("recall", (0,))})
    turns[2].information_ids = [40, *A0, *I0, 41]
    assert after(turns, "recall") == [
        [*P, *A0, *I0],
        [*P, *A1, *I1],
        [*P, *A2, 40, *A0, *I0, 41],
        [*P, *A3, *I3],
    ]


@pytest.mark.parametrize("mode", [Compaction(10), Recall("compaction", 10)])
def test_compaction_sums_up_all_but_the_turn_that_would_pass_the_budget(mode):
    first, second = (Turn(ids, [0.0] * len(ids), kind="memory", opening_ids=m) for ids in (M0, M1))
    a0, a1, a2, a3 = four()
    played = [a0, a1, a2, first, a3, second, Turn([18], [0.0])]
    kinds = [next_kind(played[:number], mode, len(P)) for number in range(7)]
    assert kinds == ["act", "act", "act", "memory", "act", "memory", "act"]
    assert contexts(Trajectory(task(), P, played, StopReason.DONE), mode) == [
        P,
        [*P, *A0, *I0],  # 5
        [*P, *A0, *I0, *A1, *I1],  # 8; a third turn makes 11
        [*P, *A0, *I0, *A1, *I1, *m],
        [*P, *m, *M0, *A2, *I2],  # 8; a fourth turn makes 11
        [*P, *m, *M0, *A2, *I2, *m],
        [*P, *m, *M1, *A3, *I3],
    ]


def test_compaction_sums_up_a_turn_that_alone_passes_the_budget():
    long = Turn([10] * 9, [0.0] * 9, [20] * 9)
    memory = Turn(M0, [0.0] * 2, kind="memory", opening_ids=m)
    assert next_kind([long], Compaction(10), 2) == "memory"
    assert context_ids(P, [long], Compaction(10), "memory") == [*P, *[10] * 9, *[20] * 9]
    assert context_ids(P, [long, memory], Compaction(10)) == [*P, *m, *M0]


def test_contexts_of_a_budget_keep_to_it_whatever_the_length_of_turns():
    assert longest_context(20, 6, 4, 10, Compaction(1000)) == 20 + 5 * 14 + 4  # never in the way
    assert longest_context(20, 6, 4, 10, Compaction(60), opening_tokens=1) == 60 + 1 + 4
    assert longest_context(20, 6, 4, 10, Compaction(15)) == 20 + 4 + 14 + 4  # a prompt, a memory and a turn are more
    assert longest_context(20, 6, 4, 10, Recall("compaction", 60), opening_tokens=1) == 60 + 1 + 4
    assert longest_context(20, 6, 4, 10, Masked(2), note_tokens=3) == 20 + 3 * 7 + 2 * 14 + 4
    assert {longest_context(20, 6, 4, 10, mode) for mode in ("fold", "edit", "multiscale")} == {20 + 5 * 14 + 4}


BRANCH, RETURN = Directive("branch"), Directive("return")
IN_VAIN = {
    "a branch in a branch": (
        *("fold", {0: BRANCH}, "branch[more]", ""),
        "branch: expected the main thread, got a branch inside a branch; return first",
    ),
    "a return from nothing": (
        *("fold", {0: BRANCH, 1: RETURN}, "return[done]", ""),
        "return: expected an open branch to return from, got the main thread",
    ),
    "a branch for nothing": ("fold", {}, "branch[ ]", "", "branch: expected words in branch[...], got nothing"),
    "a turn to come": ("edit", {}, "delete[3-4]", "", "delete: expected turns of 0-3, got 4"),
    "a turn far away": ("edit", {}, "delete[0-999999]", "", "delete: expected turns of 0-3, got 999999"),
    "a turn that is gone": (
        *("edit", {2: Directive("delete", (0, 1))}, "delete[0, 2]", ""),
        "delete: expected turns of 2-3, got 0",
    ),
    "no number": (
        *("edit", {}, "delete[the first]", ""),
        "delete: expected numbers of turns, such as delete[0-2, 4], got 'the first'",
    ),
    "a turn in view": ("recall", {}, "recall[3]", "", "recall: expected turns of 0-2, got 3"),
    "a turn that is not": ("recall", {}, "recall[1, 7]", "", "recall: expected turns of 0-2, got 7"),
    "a backward range": (
        *("recall", {}, "recall[2-1]", ""),
        "recall: expected numbers of turns, such as recall[0-2, 4], got '2-1'",
    ),
    "a range across a block": (
        *("multiscale", {3: Directive("fold", (0, 1))}, "click[red]", "[1-3] red"),
        "fold: expected a range made of 0-1, 2, 3, got [1-3]",
    ),
    "a range to come": (
        "multiscale",
        {},
        "click[red]",
        "[2-4] red",
        "fold: expected a range made of 0, 1, 2, 3, got [2-4]",
    ),
    "a range backwards": (
        "multiscale",
        {},
        "click[red]",
        "[2-1]",
        "fold: expected a range made of 0, 1, 2, 3, got [2-1]",
    ),
}


@pytest.mark.parametrize("case", IN_VAIN)
def test_what_is_asked_in_vain_is_one_line_that_says_what_there_is(case):
    mode, directives, action, state, problem = IN_VAIN[case]
    found = asked(four(directives), parsed(action, state), memory_mode(mode))
    assert (found.problem, found.directive, found.reply) == (problem, None, None)


@pytest.mark.parametrize(
    ("mode", "directives", "action", "state", "directive"),
    [
        ("fold", {}, "branch[find the price]", "", Directive("branch")),
        ("fold", {0: BRANCH}, "return[it is 3]", "", Directive("return")),
        ("edit", {}, "delete[2, 0-1: it is 3]", "", Directive("delete", (0, 1, 2))),
        ("recall", {}, "recall[0, 0-1]", "", Directive("recall", (0, 1))),
        ("multiscale", {}, "click[red]", "[2-3] red", Directive("fold", (2, 3), acts=True)),
        ("multiscale", {}, "click[red]", "[3] red", Directive("fold", (3,), acts=True)),
        ("multiscale", {}, "click[red]", "red costs [3]", Directive("fold", (0, 1, 2, 3), acts=True)),
        ("multiscale", {}, "click[red]", "", None),
    ],
)
def test_what_can_be_done_is_kept_on_the_turn(mode, directives, action, state, directive):
    found = asked(four(directives), parsed(action, state), memory_mode(mode))
    assert (found.problem, found.directive) == ("", directive)
    assert (found.reply is None) == (mode == "multiscale")


def test_recall_quotes_the_ids_of_the_turns_and_counts_acts_alone():
    memory = Turn(M0, [0.0] * 2, kind="memory", opening_ids=m)
    turns = [*four()[:3], memory, four()[3]]
    found = asked(turns, parsed("recall[1]"), Recall("compaction", 9))
    assert found.quoted == [*A1, *I1] and found.reply == "\nEnd of what was fetched: 1."
    assert asked(turns, parsed("recall[2]"), Recall("compaction", 9)).problem == "recall: expected turns of 0-1, got 2"


@pytest.mark.parametrize("mode", ["mem1", "fold", "edit", "recall", "multiscale"])
def test_an_action_of_the_environment_is_left_to_it(mode):
    found = asked([], parsed("click[delete]", "red"), memory_mode(mode))
    assert (found.directive, found.reply, found.problem) == (None, None, "")


def test_numbers_of_turns_are_read_as_they_are_written():
    assert read_ranges(" 0 - 2 ,4") == [(0, 2), (4, 4)]
    assert [read_ranges(text) for text in ("", ",", "1-", "a", "-1", "2-1", "1" * 7)] == [None] * 7
    assert write_numbers([4, 2, 0, 1]) == "0-2, 4" and write_numbers([]) == "none"
    assert chosen("5-9", [0, 5], "recall") == ((), "recall: expected turns of 0, 5, got 9")
    assert chosen("0, 5", [0, 5], "recall") == ((0, 5), "")
    assert chosen("0", [], "recall") == ((), "recall: expected turns of none, got 0")


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"mode": "compaction", "budget": 0}, "model.memory.budget too small: expected at least 1, got 0"),
        ({"mode": "recall", "over": "full"}, "unknown mode to recall in: expected one of mem1, compaction, got 'full'"),
        ({"mode": "recall", "over": "compaction", "budget": 0}, "model.memory.budget too small"),
        ({"mode": "masked", "window": 0}, "model.memory.window too small: expected at least 1, got 0"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(setting, line):
    with pytest.raises(ValueError, match=line):
        memory_mode(setting)


@pytest.mark.parametrize("mode", ["compaction", "masked", "fold", "multiscale", "edit", "recall"])
def test_a_mode_explains_itself_with_the_tags_of_the_task(mode):
    kind = memory_mode(mode)
    assert all(f"<answer>{name}[" in kind.about(Tags()) for name in kind.actions)
    assert all(f"<{name}>" in kind.about(QA_TAGS) for name in kind.actions)
    assert kind.about(Tags()) and "{" not in kind.about(Tags())
