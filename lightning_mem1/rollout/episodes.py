"""Episodes: a task with its environment, or with one that says why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_mem1.rollout.env_guard import EnvError
from lightning_mem1.types import Env, StepResult, Task, TaskSource


@dataclass(frozen=True)
class Episode:
    """A task to be played: `group` numbers the episodes of the same task, `seed` makes the sampling its own."""

    task: Task
    env: Env
    group: int = 0
    seed: int = 0


class BrokenEnv:
    """Stands for an environment that could not be made; says so as soon as it is looked at."""

    def __init__(self, error: EnvError) -> None:
        self.error = error

    def observe(self) -> str:
        """Raise what went wrong."""
        raise self.error

    def step(self, action: str) -> StepResult:
        """Raise what went wrong."""
        raise self.error


def make_env(source: TaskSource, task: Task) -> Env:
    """The task's environment, or a `BrokenEnv` when it cannot be made: a bad rollout is data."""
    try:
        return source.env(task)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return BrokenEnv(EnvError.of(error))
