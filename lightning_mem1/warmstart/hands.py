"""Lets a scripted expert write the turns of an episode in a memory mode, as one text or in two parts, and slip."""

from __future__ import annotations

import random
from collections.abc import Callable

from lightning_mem1.context.tags import Tags
from lightning_mem1.engine.scripted import Writer
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import Env, Task, TaskSource
from lightning_mem1.warmstart.habits import Habit, Subtasks, habit
from lightning_mem1.warmstart.settings import WarmStart

# what is played, how, and who writes the turns of an episode
Play = tuple[TaskSource, RolloutSettings, Callable[[random.Random, Env, Task], Writer]]
Expert = Callable[[str | None, int], str]  # its previous turn, turns left -> the next one
LAPSES = 0.1  # least part of broken turns where the mode is for what they cost


class Hand:
    """Lets an expert write through a `ScriptedEngine`: it is given its previous turn and the number of turns left.

    Behind a broken turn it writes what it meant, as long as its last whole turn and the reply to that are in view.
    Where they are not, the memory mode may fetch them; else the expert begins again.

    Args:
        turn: The expert.
        env: Where it plays.
        slip: Breaks a turn off now and then.
        max_turns: Turns of the task.
        habit: What it does for the memory mode.
        retries: Whether a broken turn leaves the context (`rollout.malformed` retry).
    """

    def __init__(
        self, turn: Expert, env: Env, slip: Callable[[str], str], max_turns: int, habit: Habit, retries: bool = False
    ) -> None:
        self.turn, self.env, self.slip, self.max_turns = turn, env, slip, max_turns
        self.habit, self.retries = habit, retries
        self.previous: str | None = None  # the expert's last turn
        self.held = ""  # its next one, until it is written
        self.seen = ("", "")  # what shows where it is: a turn as it was written, a line of the reply to it
        self.broken = ""  # a turn behind which no whole one of the expert was written yet
        self.fetched = False  # since then
        self.num_written = 0

    def __call__(self, context: str) -> str:
        self._look(context)
        own = self.habit.before(self._next(), self._left)
        text = own or self.habit.dressed(self._next())
        written = self.slip(text)
        self._wrote(written, text, bool(own))
        return written

    @property
    def _left(self) -> int:
        """Turns left, the next one included."""
        return self.max_turns - self.num_written

    def _look(self, context: str) -> None:
        """Behind a broken turn: keep what was meant, have it fetched, or begin again."""
        self.habit.lost = False
        if not self.broken or self._in_view(context):
            return
        if self.habit.fetches and self.previous is not None and not self.fetched:
            self.habit.lost = True
        else:
            self.previous, self.broken, self.held = self.broken, "", ""

    def _in_view(self, context: str) -> bool:
        return _shows(context, *self.seen)

    def _next(self) -> str:
        if self.broken and self._left <= 1:
            self.held = ""  # what was meant may be no answer
        if not self.held:
            self.held = self.turn(self.previous, self._left)
            lines = self.env.observe().strip().splitlines()
            self.seen = (self.seen[0], lines[0] if lines else "")
        return self.held

    def _wrote(self, written: str, text: str, own: bool) -> None:
        whole = written == text
        self.num_written += 1
        self.habit.wrote(own, whole, whole or not self.retries)
        if not whole:
            self.broken, self.fetched = written, False
        elif not own:
            self.previous, self.held, self.broken, self.seen = self.held, "", "", (text, "")
        elif self.habit.fetches:
            self.fetched = True
        else:
            self.seen = (text, "")  # it has the state of what is held


class StagedHand(Hand):
    """Writes the same turns in two parts, the state when a memory is asked for and then the action.

    Where none is asked for before an action, as before the first one, the state stays unwritten. A memory that does not
    sum up the latest turn, as in `compaction`, is what was known before the reply to it.
    """

    num_newer = 0  # acts that no memory sums up

    def __call__(self, context: str) -> str:
        self._look(context)
        if context.endswith(self.habit.tags.state_opening):
            return self._memory()
        _, text = self._parts(self._next())
        written = self.slip(text)
        if written != text:
            self._wrote(self._parts(self.held)[0] + written, self.held, False)
        else:
            self._wrote(self.held, self.held, False)
        self.num_newer += 1
        return written

    def _memory(self) -> str:
        before_latest = self.num_newer > 1 and not self.held and self.previous
        self.num_newer = min(self.num_newer - 1, 1)
        state, _ = self._parts(before_latest or self._next())
        return state.removeprefix(self.habit.tags.state_opening)

    def _in_view(self, context: str) -> bool:
        """What is held is read from the memory, or from the last turn and the reply to it."""
        turn, line = self.seen
        (state, _), (_, action) = self._parts(self.held), self._parts(turn)
        return self.previous is not None and (_shows(context, action, line) or _shows(context, state))

    def _parts(self, turn: str) -> tuple[str, str]:
        """State and action of a turn."""
        state, closing, action = turn.partition(self.habit.tags.state_closing)
        return state + closing, action


def _shows(context: str, turn: str, line: str = "") -> bool:
    """Whether a turn is in a context, and the line somewhere behind it; tokenizers may change spaces and capitals."""
    context, turn, line = ("".join(text.lower().split()) for text in (context, turn, line))
    _, found, behind = context.rpartition(turn) if turn else ("", "", "")
    return bool(found) and line in behind


def hand(
    config: WarmStart,
    tags: Tags,
    expert: Expert,
    env: Env,
    rng: random.Random,
    max_turns: int,
    may_slip: bool = True,
    subtasks: Subtasks | None = None,
) -> Writer:
    """An expert whose turns slip by the chance of `warmstart.data.slip`.

    Args:
        config: The memory mode, the chance, and what becomes of a broken turn.
        tags: The world's.
        expert: Writes the turns.
        env: Where it plays.
        rng: Draws the slips.
        max_turns: Turns of the task.
        may_slip: Whether turns of this task may slip.
        subtasks: How the task falls into parts, if it does.
    """
    does = habit(config.mode, tags, subtasks)
    chance = max(config.data.slip, LAPSES if does.fetches else 0.0) if may_slip else 0.0

    def slip(text: str) -> str:
        return slipped(text, rng, chance)

    kind = StagedHand if config.mode.staged else Hand
    return kind(expert, env, slip, max_turns, does, config.rollout.retries)


def slipped(text: str, rng: random.Random, chance: float) -> str:
    """Now and then break a turn off or run it into a loop, as a small policy does; such a turn is no valid one."""
    if rng.random() >= chance:
        return text
    words = text.rsplit("</", 1)[0].split(" ")
    kept = words[: rng.randint(1, len(words))]
    repeated = kept[-rng.randint(1, 4) :] * rng.randint(0, 8)
    return " ".join([*kept, *repeated])
