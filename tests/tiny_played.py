"""Tasks for the commands that play: they note what was played, interrupt, or write what must not reach a terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from lightning_mem1.types import Env, Split, StepResult, Task
from tiny_tasks import RankedEnv, RankedTasks


class CountedEnv(RankedEnv):
    """Two turns; the task's number in tenths is its reward."""

    def __init__(self, task: Task) -> None:
        self.task = task
        super().__init__(int(task.id.rpartition("/")[2]) / 10)

    def step(self, action: str) -> StepResult:
        if len(CountedTasks.ended) == CountedTasks.interrupted_after:
            raise KeyboardInterrupt
        result = super().step(action)
        if result.done:
            CountedTasks.ended.append(self.task.id)
        return result


class CountedTasks(RankedTasks):
    """Set `ended` to [] and `interrupted_after` to a number of episodes before a run."""

    ended: ClassVar[list[str]] = []
    interrupted_after: ClassVar[int | None] = None

    def env(self, task: Task) -> Env:
        return CountedEnv(task)


class EmptySplits(RankedTasks):
    """Has training tasks only."""

    def size(self, split: Split) -> int:
        return 3 if split == "train" else 0


class RudeEnv(RankedEnv):
    """Its texts would clear the screen and set a style."""

    def observe(self) -> str:
        return "\x1b[2Jobserved [red]x[/red]"

    def step(self, action: str) -> StepResult:
        result = super().step(action)
        return result if result.done else StepResult("\x1b]0;title\x07told [bold]y[/bold]\n" + "more\n" * 30)


class RudeTasks(RankedTasks):
    """Tasks of `RudeEnv`, with a prompt to match."""

    def task(self, split: Split, index: int) -> Task:
        return replace(super().task(split, index), prompt="\x1b[31masked [/] [link=x]z[/link]")

    def env(self, task: Task) -> Env:
        return RudeEnv(0.5)
