"""A task source and environments small enough to reason about, named by class_path in the tests' configs."""

from __future__ import annotations

import os
import signal
from collections import Counter

from lightning_mem1.types import Env, Objective, Split, StepResult, Task

SIZES = {"train": 10, "val": 6, "test": 2}


class RankedEnv:
    """Takes any action, ends after two turns and pays what it was made with."""

    num_turns = 2

    def __init__(self, reward: float) -> None:
        self.reward, self.num_steps = reward, 0

    def observe(self) -> str:
        return "search page"

    def step(self, action: str) -> StepResult:
        self.num_steps += 1
        if self.num_steps < self.num_turns:
            return StepResult("red shoes", valid=bool(action))
        return StepResult("", self.reward, done=True, valid=bool(action), info={"success": float(self.reward == 1.0)})


class RankedTasks:
    """The n-th episode of a training task's group is paid n / (group_size - 1); validation pays 0.5.

    A random policy learns from it without ever writing a proper action, and every rl_step is repeatable.
    """

    def __init__(self, group_size: int = 3, equal: bool = False) -> None:
        self.group_size, self.equal = group_size, equal
        self.made: Counter[str] = Counter()

    def size(self, split: Split) -> int:
        return SIZES[split]

    def task(self, split: Split, index: int) -> Task:
        return Task(f"ranked/{split}/{index}", f"count to {index}", (Objective("how many?"),), max_turns=4)

    def env(self, task: Task) -> Env:
        number = self.made[task.id] % self.group_size
        self.made[task.id] += 1
        fixed = self.equal or "/val/" in task.id
        return RankedEnv(0.5 if fixed else number / (self.group_size - 1))

    def baselines(self, split: Split, indices: list[int]) -> dict[str, float]:
        return {"rule": 0.25, "oracle": 1.0}


class LongEnv(RankedEnv):
    """Ends after four turns, so that memory has dropped something."""

    num_turns = 4


class LongTasks(RankedTasks):
    """The same over four turns."""

    def env(self, task: Task) -> Env:
        return LongEnv(super().env(task).reward)  # type: ignore[attr-defined]


class BrokenEnv(RankedEnv):
    """Fails in its second turn."""

    def step(self, action: str) -> StepResult:
        if self.num_steps:
            raise RuntimeError("the shop is on fire")
        return super().step(action)


class BrokenTasks(RankedTasks):
    """The first episode of every group breaks."""

    def env(self, task: Task) -> Env:
        env = super().env(task)
        return BrokenEnv(0.0) if env.reward == 0.0 else env  # type: ignore[attr-defined]


class InterruptedTasks(RankedTasks):
    """Somebody presses Ctrl-C in the first episode of the third rl_step."""

    def env(self, task: Task) -> Env:
        if sum(n for name, n in self.made.items() if "/train/" in name) >= 2 * 2 * self.group_size:
            raise KeyboardInterrupt
        return super().env(task)


class TerminatedTasks(RankedTasks):
    """The scheduler wants the machine back in the first episode of the second rl_step."""

    def env(self, task: Task) -> Env:
        if sum(n for name, n in self.made.items() if "/train/" in name) == 2 * self.group_size:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().env(task)


class NoTasks(RankedTasks):
    """Has nothing to do."""

    def size(self, split: Split) -> int:
        return 0


class KeyedTasks(RankedTasks):
    """Would ask a service that wants a key."""

    def __init__(self, api_key: str, address: str = "") -> None:
        super().__init__()
        self.api_key, self.address = api_key, address
