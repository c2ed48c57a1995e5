"""Lets a scripted expert write the turns of an episode, as one text or in two parts, and slip now and then."""

from __future__ import annotations

import random
from collections.abc import Callable

from lightning_mem1.context.tags import Tags
from lightning_mem1.engine.scripted import Writer
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import Env, Task, TaskSource
from lightning_mem1.warmstart.settings import WarmStart

# what is played, how, and who writes the turns of an episode
Play = tuple[TaskSource, RolloutSettings, Callable[[random.Random, Env, Task], Writer]]


class Hand:
    """Lets an expert write through a `ScriptedEngine`: it is given its previous turn and the number of turns left."""

    def __init__(self, turn: Callable[[str | None, int], str], slip: Callable[[str], str], max_turns: int) -> None:
        self.turn, self.slip, self.max_turns = turn, slip, max_turns
        self.written: list[str] = []

    def __call__(self, context: str) -> str:
        self.written.append(self.slip(self.next()))
        return self.written[-1]

    def next(self) -> str:
        return self.turn(self.written[-1] if self.written else None, self.max_turns - len(self.written))


class StagedHand(Hand):
    """Writes the same turns in two parts, the state when a memory is asked for and then the action.

    Where none is asked for before an action, as before the first one, the state stays unwritten.
    """

    def __init__(
        self, turn: Callable[[str | None, int], str], slip: Callable[[str], str], max_turns: int, tags: Tags
    ) -> None:
        super().__init__(turn, slip, max_turns)
        self.tags, self.state, self.action = tags, "", ""

    def __call__(self, context: str) -> str:
        asked_for_memory = context.endswith(self.tags.state_opening)
        if asked_for_memory or not self.action:
            self.state, closing, self.action = self.next().partition(self.tags.state_closing)
            self.state += closing
        if asked_for_memory:
            return self.state.removeprefix(self.tags.state_opening)
        action, self.action = self.slip(self.action), ""
        self.written.append(self.state + action)
        return action


def hand(
    config: WarmStart,
    tags: Tags,
    turn: Callable[[str | None, int], str],
    rng: random.Random,
    max_turns: int,
    chance: float,
) -> Writer:
    """An expert whose turns slip by chance."""

    def slip(text: str) -> str:
        return slipped(text, rng, chance)

    return StagedHand(turn, slip, max_turns, tags) if config.mode.staged else Hand(turn, slip, max_turns)


def slipped(text: str, rng: random.Random, chance: float) -> str:
    """Now and then break a turn off or run it into a loop, as a small policy does; such a turn is no valid one."""
    if rng.random() >= chance:
        return text
    words = text.rsplit("</", 1)[0].split(" ")
    kept = words[: rng.randint(1, len(words))]
    repeated = kept[-rng.randint(1, 4) :] * rng.randint(0, 8)
    return " ".join([*kept, *repeated])
