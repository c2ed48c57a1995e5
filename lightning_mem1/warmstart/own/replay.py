"""Plays a recorded episode again, so that its ids are those of a rollout in whatever memory mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lightning_mem1.context.tags import Tags
from lightning_mem1.types import Env, Objective, StepResult, Task, TaskSource
from lightning_mem1.warmstart.own.records import Record


class RecordedEnv:
    """Says what an environment said then, whatever is done.

    Args:
        record: The episode.
    """

    def __init__(self, record: Record) -> None:
        self.record, self.num_steps = record, 0

    def observe(self) -> str:
        """Nothing: the prompt holds what was seen first."""
        return ""

    def step(self, action: str) -> StepResult:
        """The recorded reply; behind the last turn the episode is over and pays its reward."""
        self.num_steps += 1
        if self.num_steps < len(self.record.turns):
            return StepResult(self.record.replies[self.num_steps - 1])
        reward = self.record.reward or 0.0
        return StepResult("", reward, done=True, info={"success": float(reward > 0)})


class CutShort:
    """An environment that ends an episode behind a number of steps.

    Args:
        env: The environment.
        num_steps: After so many the episode is over.
    """

    def __init__(self, env: Env, num_steps: int) -> None:
        self.env, self.left = env, num_steps

    def observe(self) -> str:
        """What the environment shows."""
        return self.env.observe()

    def step(self, action: str) -> StepResult:
        """Carry out an action."""
        self.left -= 1
        result = self.env.step(action)
        return result if self.left else replace(result, done=True)


class ReplayedTurns:
    """Writes recorded turns through a `ScriptedEngine`: as they are, or in two parts where a memory is staged.

    Args:
        turns: Their texts.
        tags: The world's.
        staged: Whether calls of their own write the memory: that is the state of the turn behind it then.
    """

    def __init__(self, turns: Sequence[str], tags: Tags, staged: bool) -> None:
        self.turns, self.tags, self.staged, self.number = list(turns), tags, staged, 0

    def __call__(self, context: str) -> str:
        """The next turn, or its part that is asked for."""
        turn = self.turns[min(self.number, len(self.turns) - 1)]
        state, closing, action = turn.rpartition(self.tags.state_closing)
        if self.staged and context.endswith(self.tags.state_opening):
            return state.removeprefix(self.tags.state_opening) + self.tags.state_closing
        self.number += 1
        return action if self.staged and closing else turn


def replayed(record: Record, source: TaskSource | None, number: int) -> tuple[Task, Env]:
    """The task and the environment of a record.

    Args:
        record: The episode.
        source: Makes the task of one that is played again.
        number: Of the record, for the name of a task that no source makes.

    Raises:
        ValueError: it is to be played again, and there is no source or no such task.
    """
    if record.task is None:
        asked = (Objective(record.prompt),)
        return Task(f"recorded/{number}", record.prompt, asked, record.max_turns or len(record.turns)), RecordedEnv(
            record
        )
    split, index = record.task
    if source is None:
        raise ValueError(
            f"{record.where} is played again in its task: expected warmstart.data.own.source, got null; set it, or "
            "give the prompt and the replies"
        )
    if index >= (size := source.size(split)):
        raise ValueError(
            f"no such task: expected an index below {size} in split '{split}', got {index} in {record.where}"
        )
    task = source.task(split, index)
    return task, CutShort(source.env(task), len(record.turns))
