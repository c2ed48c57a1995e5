"""The conformance kit passes what the rollout can play, and names in one line what it cannot."""

import random
import re
from itertools import count
from pathlib import Path
from typing import ClassVar

import pytest

from lightning_mem1.context.memory import Asked, MemoryMode
from lightning_mem1.context.modes import MODES
from lightning_mem1.context.tags import QA_TAGS
from lightning_mem1.environments.qa.tasks import EncyclopediaTasks
from lightning_mem1.environments.webshop.tasks import ShopTasks
from lightning_mem1.testing import check_contexts, check_env, check_memory
from lightning_mem1.types import Directive, StepResult, Turn
from tiny import task

TASK = task(7, max_turns=4)


class Sound:
    """Takes ``go[...]`` and ends after two of them."""

    def __init__(self, task):
        self.gone = 0

    def observe(self):
        return f"Actions: go[on], gone {self.gone}"

    def step(self, action):
        if self.gone == 2:
            return StepResult("", done=True, valid=False)
        if not re.fullmatch(r"go\[.+\]", action):
            return StepResult("Expected go[...].", valid=False)
        self.gone += 1
        return self.reply()

    def reply(self):
        return StepResult("on", 0.5, done=self.gone == 2)


def check(kind, **settings):
    return check_env(kind, TASK, actions=["go[on]", "", "go[on]"], num_episodes=2, **settings)


def failure(kind, **settings) -> str:
    with pytest.raises(AssertionError) as caught:
        check(kind, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_sound_environment_passes_and_the_report_counts_what_was_played():
    report = check_env(Sound, TASK, actions=["go[on]", "", "go[on]"], num_episodes=0)
    assert (report.num_episodes, report.num_done, report.num_turns, report.num_valid) == (1, 1, 3, 2)
    assert check(Sound).num_episodes == 3


def test_our_shop_passes():
    source = ShopTasks(num_products=60, max_turns=5)
    report = check_env(source, source.task("test", 0), num_episodes=4)
    assert report.num_episodes == 4 and report.num_valid > 0


def test_our_questions_pass_with_an_end():
    source = EncyclopediaTasks(0, 60, (1,), objectives=2)
    asked = source.task("val", 1)
    actions = ["search[town]", "", "answer[a; b]"]
    report = check_env(source, asked, actions=actions, tags=QA_TAGS, num_episodes=4)
    assert report.num_episodes == 5 and report.num_done >= 1


class NoText(Sound):
    def observe(self):
        return None


class BlindStart(Sound):
    def observe(self):
        raise RuntimeError("no page")


class Peeking(Sound):
    def observe(self):
        self.gone += 1
        return "Actions: go[on]"


class Winking(Sound):
    def observe(self):
        self.gone = 0  # shows the same, and yet nothing ever ends
        return "Actions: go[on]"


class Tuples(Sound):
    def step(self, action):
        return "on", 0.5, False


class NotFinite(Sound):
    def reply(self):
        return StepResult("on", float("nan"))


class Bytes(Sound):
    def reply(self):
        return StepResult(b"on")


class NumberDone(Sound):
    def reply(self):
        return StepResult("on", done=1)


class Raising(Sound):
    def step(self, action):
        _, argument = action.split("[", 1)
        return super().step(action)


class Lenient(Sound):
    def step(self, action):
        return super().step(action or "go[on]")


class Paying(Sound):
    def step(self, action):
        result = super().step(action)
        return result if result.valid or self.gone == 2 else StepResult("Try again.", 0.1, valid=False)


class Endless(Sound):
    def step(self, action):
        if self.gone == 2:
            return StepResult("on")
        return super().step(action)


class Dicing(Sound):
    numbers = count()

    def reply(self):
        return StepResult(f"on {next(self.numbers)}", done=self.gone == 2)


class Shared(Sound):
    taken: ClassVar[list[int]] = []

    def __init__(self, task):
        super().__init__(task)
        Shared.taken = []  # each episode seems to begin anew

    def reply(self):
        Shared.taken.append(1)
        return StepResult(f"on {len(Shared.taken)}", done=self.gone == 2)


class Tagged(Sound):
    def reply(self):
        return StepResult("<state>on</state>", done=self.gone == 2)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (NoText, "task 'tiny/7': expected observe() to return text, got NoneType; return a str"),
        (BlindStart, "expected observe() to show a page, got RuntimeError: no page; return an empty text"),
        (Peeking, "expected observe() to change nothing, got "),
        (Winking, "expected observe() to change nothing, got "),
        (Tuples, "expected step() to return a StepResult, got tuple; make one"),
        (NotFinite, "expected a finite reward, got nan; repair what step('go[on]') pays"),
        (Bytes, "expected information as text, got b'on'; make it a str"),
        (NumberDone, "expected done to be True or False, got 1; make it a bool"),
        (Raising, "expected step('') to raise nothing, got ValueError: not enough values to unpack"),
        (Lenient, "expected valid=False for '', got valid=True; the turn is spent: say so with valid=False"),
        (Paying, "expected no pay for '', got 0.1; pay for what was done"),
        (Endless, "expected the end to be the end, got done=False one step later; raise, or return done=True again"),
        (Dicing, "expected the same replies to the same actions in a second environment, got "),
        (Shared, "expected two environments of one task to share no state, got ('on 3'"),
        (Tagged, "expected no tag of the prompt format in information, got <state>on</state>; leave tags to the pr"),
    ],
)
def test_what_an_environment_gets_wrong_is_one_line(kind, line):
    assert line in failure(kind)


def test_an_environment_may_raise_after_its_end():
    class Strict(Sound):
        def step(self, action):
            if self.gone == 2:
                raise RuntimeError("over")
            return super().step(action)

    assert check(Strict).num_done >= 1


def test_a_task_without_turns_and_a_source_that_hands_out_one_environment_are_named():
    with pytest.raises(AssertionError, match=r"expected at least 1 turn, got 0; set Task.max_turns"):
        check_env(Sound, task(7, max_turns=0))
    only = Sound(TASK)
    assert "expected a fresh environment each time, got the same object" in failure(lambda task: only)


def test_a_player_of_ones_own_reaches_what_breaks_late():
    class Late(Sound):
        def reply(self):
            if self.gone == 2:
                raise KeyError("page 2")
            return StepResult("on")

    line = "expected step('go[far]') to raise nothing, got KeyError: 'page 2'; answer an action"
    with pytest.raises(AssertionError, match=re.escape(line)):
        check_env(Late, TASK, player=lambda shown, rng: "go[far]")


def test_tags_in_texts_of_strangers_are_allowed_when_said_so():
    assert check(Tagged, strangers=True).num_done >= 1


@pytest.mark.parametrize("mode", list(MODES))
def test_our_memory_modes_pass_and_grow_as_they_say_where_nothing_is_asked_of_them(mode):
    report = check_memory(mode)
    growing = {name: 8 for name in ("full", "compaction", "fold", "multiscale", "edit", "recorded")}
    growing["masked"] = 3  # tokens per turn
    assert report.bounded == (mode not in growing)
    # prompt of 3, turns of 3 + 5
    expected = {"mem1": [11] * 6, "none": [8] * 6, "window": [11] + [19] * 5}
    expected["amem"] = [11, 19] + [27] * 4
    expected["summary"] = [12] + [15] * 5  # prompt, old memory of 3, turn and reply, and the opening of the new one
    expected["recall"] = expected["mem1"]
    expected |= {name: [3 + 8 * n for n in (1, 2, 4, 8, 16, 32)] for name in growing}
    expected["masked"] = [11, 19, 35, 67, 3 + 10 * 8 + 6 * 3, 3 + 10 * 8 + 22 * 3]  # the replies of the last ten
    assert list(report.longest) == [1, 2, 4, 8, 16, 32] and list(report.longest.values()) == expected[mode]
    assert report.tokens_per_turn == growing.get(mode, 0)


@pytest.mark.parametrize("memory", [{"mode": "compaction"}, {"mode": "recall", "over": "compaction"}])
def test_a_mode_with_a_budget_keeps_to_it_in_every_call(memory):
    report = check_memory({**memory, "budget": 40})
    assert report.bounded and report.longest[4] == 3 + 4 * 8
    # prompt, opening and memory of 3 together, and four turns make 38; the opening of a memory comes on top of the 40
    assert report.longest[32] <= 40 + 1 and report.longest[8] == 38


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        ("no such turn\nat all", "expected a problem in one line, got no such turn at all; fix its parse()"),
        (KeyError(7), "memory mode '.*Broken' failed after 0 turns: KeyError: 7"),
    ],
)
def test_what_a_mode_asks_in_a_wrong_way_is_named(problem, line):
    class Broken(MemoryMode):
        def context(self, turns):
            return whole(turns)

        def parse(self, turns, written):
            if isinstance(problem, Exception):
                raise problem
            return Asked(problem=problem)

    with pytest.raises((AssertionError, ValueError), match=line):
        check_memory(Broken())


def test_a_context_that_cuts_a_turn_only_once_something_was_asked_is_named():
    class Cutting(MemoryMode):
        actions = ("cut",)

        def context(self, turns):
            cut = any(turn.directive for turn in turns)
            return [turn.information_ids[:1] if cut else turn.information_ids for turn in turns[-1:]]

        def parse(self, turns, written):
            return Asked(Directive("cut")) if self.own_action(written) else Asked()

    with pytest.raises(AssertionError, match="'Cutting': expected contexts of whole parts, got"):
        check_memory(Cutting())


def test_a_mode_whose_memory_is_written_apart_is_checked_over_turns_of_both_kinds():
    seen = []

    class LatestTwo(MemoryMode):
        staged = True

        def context(self, turns):
            seen.append([turn.kind for turn in turns])
            memories, acts = ([turn for turn in turns if turn.kind == kind] for kind in ("memory", "act"))
            return [*(turn.ids for turn in memories[-1:]), *whole(acts[-1:])]

    class Backwards(MemoryMode):
        staged = True

        def context(self, turns):
            return [*whole(turns[-1:]), *(turn.ids for turn in turns[:-1] if turn.kind == "memory")]

    assert check_memory(LatestTwo).longest[32] == 15
    assert ["act", "memory", "act"] in seen
    with pytest.raises(AssertionError, match="'Backwards': expected turns oldest first and none twice"):
        check_memory(Backwards())


def whole(turns):
    return [ids for turn in turns for ids in (turn.ids, turn.information_ids)]


def cut(turns):
    return [turn.information_ids[:2] for turn in turns[-1:]]


def newest_first(turns):
    return whole(list(turns)[::-1])


def twice(turns):
    return whole([*turns[-1:], *turns[-1:]])


def of_its_own(turns):
    return [[7], *whole(turns[-1:])]


def dicing(turns):
    return whole(random.sample(list(turns), 1)) if len(turns) > 5 else whole(turns)


class Longest:
    """Remembers how many turns there have ever been."""

    __name__ = "longest"

    def __init__(self):
        self.most = 0

    def __call__(self, turns):
        self.most = max(self.most, len(turns))
        return whole(turns[-1:] if self.most < 6 else turns)


def emptying(turns):
    kept = whole([Turn(list(turn.action_ids), [], list(turn.information_ids)) for turn in turns[-1:]])
    for turn in turns[:-1]:
        turn.information_ids.clear()
    return kept


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        (cut, "memory mode 'cut': expected contexts of whole actions and replies, got ["),
        (
            of_its_own,
            "memory mode 'of_its_own': expected contexts of whole actions and replies, got [7] at 3; keep actions",
        ),
        (newest_first, "memory mode 'newest_first': expected turns oldest first and none twice, got "),
        (twice, "memory mode 'twice': expected turns oldest first and none twice, got "),
        (dicing, "memory mode 'dicing': expected the same context for the same turns, got "),
        (
            Longest(),
            "memory mode 'longest': expected contexts that later turns do not change, got others at turns [2, ",
        ),
        (emptying, "memory mode 'emptying': expected turns to be left as they are, got changed ones; copy"),
    ],
)
def test_what_a_memory_mode_gets_wrong_is_one_line(rule, line):
    random.seed(0)
    with pytest.raises(AssertionError) as caught:
        check_memory(rule)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_contexts_without_their_prompt_are_named():
    with pytest.raises(AssertionError, match=r"expected contexts to start with the prompt \[1, 2, 3\], got \[\]; put"):
        check_contexts(lambda prompt, turns: [i for ids in whole(turns[-1:]) for i in ids])


def test_an_unknown_mode_names_those_there_are():
    with pytest.raises(ValueError, match="compaction, masked, fold, multiscale, edit, recall, recorded, got 'mem2'"):
        check_memory("mem2")


def test_the_environment_of_the_contributing_page_runs_as_it_stands_there():
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict = {"__name__": "contributing"}
    exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    assert names["report"].num_episodes == 6
    assert len([line for line in block.splitlines() if line]) <= 30
