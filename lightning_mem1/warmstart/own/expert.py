"""A scripted expert of one's own: a function of what a policy in constant memory sees."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from lightning_mem1.context.tags import Tags, parse_turn, read_action
from lightning_mem1.io.dotted_names import imported
from lightning_mem1.io.own_code import RAISED, told
from lightning_mem1.types import Env, StepResult, Task

Expert = Callable[[Task, str, str, random.Random], tuple[str, str]]
KEY = "warmstart.data.own.expert"


class Watched:
    """An environment that keeps what it showed last.

    Args:
        env: The environment.
    """

    def __init__(self, env: Env) -> None:
        self.env, self.seen, self.begun = env, "", False

    def observe(self) -> str:
        """What the environment shows; before the first step that is what was shown last."""
        shown = self.env.observe()
        if not self.begun:
            self.seen = shown
        return shown

    def step(self, action: str) -> StepResult:
        """Carry out an action."""
        result = self.env.step(action)
        self.seen, self.begun = result.information, True
        return result


class LastReply:
    """Shows the last reply of an environment, whatever that shows when it is looked at.

    Args:
        env: The environment.
    """

    def __init__(self, env: Watched) -> None:
        self.env = env

    def observe(self) -> str:
        """The last reply."""
        return self.env.seen

    def step(self, action: str) -> StepResult:
        """Carry out an action."""
        return self.env.step(action)


class ExpertTurns:
    """The turns of an expert in one episode.

    Args:
        name: Its dotted name.
        task: What is played.
        env: Where.
        rng: Its chances.
        tags: How its turns are written.
    """

    def __init__(self, name: str, task: Task, env: Watched, rng: random.Random, tags: Tags) -> None:
        self.name, self.expert = name, found_expert(name)
        self.task, self.env, self.rng, self.tags = task, env, rng, tags

    def __call__(self, previous: str | None, left: int) -> str:
        """The next turn as text; the memory is the internal state of the turn before.

        Raises:
            ValueError: the expert failed, or returned no pair of texts.
        """
        memory = parse_turn(previous, self.tags).internal_state if previous else ""
        try:
            said: Any = self.expert(self.task, self.env.seen, memory, self.rng)
        except RAISED as error:
            raise ValueError(f"expert '{self.name}' failed in task '{self.task.id}': {told(error)}; fix it") from error
        if not (isinstance(said, tuple) and len(said) == 2 and all(isinstance(each, str) for each in said)):
            raise ValueError(
                f"expert '{self.name}' gives no turn: expected a pair of texts, the memory and the action, got "
                f"{said!r:.80}; fix it"
            )
        return written_turn(*said, self.tags)


def found_expert(name: str) -> Expert:
    """The function that a dotted name means.

    Raises:
        ValueError: there is none.
    """
    expert = imported(name, "expert", KEY)
    if not callable(expert):
        raise ValueError(f"expected {KEY} to name a function, got {type(expert).__name__} '{name}'; set it")
    return expert  # type: ignore[no-any-return]


def written_turn(memory: str, action: str, tags: Tags) -> str:
    """A turn in the policy's format.

    >>> written_turn("want lamp", "go[attic]", Tags())
    '<summary>want lamp</summary><answer>go[attic]</answer>'
    """
    named = read_action(action) if tags.actions else None
    acts = tags.written(*named) if named and named[0] in tags.actions else f"<{tags.action}>{action}</{tags.action}>"
    return f"{tags.state_opening}{memory}{tags.state_closing}{acts}"
