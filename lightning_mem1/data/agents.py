"""Feeds tasks to agents of somebody else's: functions that call the policy through OpenAI's client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Self

from lightning_mem1.checks import PORT, TIMEOUT_S, Range, Ranges, check_numbers
from lightning_mem1.data.task_data import TaskDataModule
from lightning_mem1.io.dotted_names import imported
from lightning_mem1.rollout.gateway.agent import Agent, AgentEnv, AgentSettings, num_arguments
from lightning_mem1.types import Env, Split, Task, TaskSource


class AgentSource:
    """Tasks of another source, played by an agent.

    Args:
        source: Makes the tasks, and the environments for an agent with a third argument.
        agent: Plays them.
        settings: How.
    """

    def __init__(self, source: TaskSource, agent: Agent, settings: AgentSettings) -> None:
        self.source, self.agent, self.settings = source, agent, settings
        self._with_env = num_arguments(agent) == 3

    def size(self, split: Split) -> int:
        """Number of different tasks in a split."""
        return self.source.size(split)

    def task(self, split: Split, index: int) -> Task:
        """Task `index` of a split."""
        return self.source.task(split, index)

    def env(self, task: Task) -> Env:
        """The agent that plays a task."""
        return AgentEnv(self.agent, self.settings, self.source.env(task) if self._with_env else None)

    def __getattr__(self, name: str) -> Any:
        """Whatever else the source has: a curriculum, baselines."""
        if name in ("task_at", "baselines"):
            return getattr(self.source, name)
        raise AttributeError(name)


class AgentData(TaskDataModule):
    """Trains on the episodes of an agent, with `model.memory` recorded.

    The agent is ``async def agent(task, client) -> float | dict``, or a plain function, run in a thread. Its client is
    OpenAI's own; whatever it calls is a turn. What it returns is the reward, or a dict with ``reward`` and more numbers
    and words, such as ``success``. With a third argument, ``agent(task, client, env)``, it is given the task's
    environment as well.

    Args:
        agent: Dotted name of the agent, such as my_agent.play, or the function itself.
        tasks: Another data module whose tasks are played, such as QAData, in place of `source`; how many and how often
            is said here.
        source: Makes the tasks; in YAML a `class_path` with `init_args`.
        timeout_s: Limit of one episode, after which it ends with an error; null for none.
        max_running: Episodes at once; null for all of an rl_step.
        max_calls: Calls of the policy in one episode.
        host: Address that the gateway listens on while episodes are played.
        port: Its port; 0 for a free one.
        stream: How tasks are fed, see `TaskDataModule`: tasks_per_step, group_size, num_rl_steps and so on.

    Raises:
        ValueError: no such agent, one that cannot be called so, or a number out of range.
    """

    ranges: ClassVar[Ranges] = {
        "timeout_s": TIMEOUT_S,
        "max_running": Range(1),
        "max_calls": Range(1),
        "port": PORT,
    }

    def __init__(
        self,
        agent: str | Callable[..., Any],
        tasks: TaskDataModule | None = None,
        source: TaskSource | None = None,
        timeout_s: float | None = 600.0,
        max_running: int | None = None,
        max_calls: int = 1000,
        host: str = "127.0.0.1",
        port: int = 0,
        **stream: Any,
    ) -> None:
        check_numbers("data", AgentData, locals())
        super().__init__(source=source, **stream)
        self.agent = imported(agent, "agent", "data.agent") if isinstance(agent, str) else agent
        if not callable(self.agent):
            raise ValueError(f"expected data.agent to name a function, got {type(self.agent).__name__}; set it")
        num_arguments(self.agent)
        self.settings = AgentSettings(timeout_s, max_running, max_calls, host, port)
        self._tasks, self._inner = tasks, source
        self._source = None

    def make_source(self) -> TaskSource:
        """The agent's tasks.

        Raises:
            ValueError: neither `tasks` nor `source` is given, or both.
        """
        if (self._tasks is None) == (self._inner is None):
            given = "neither" if self._tasks is None else "both"
            raise ValueError(f"an agent plays tasks: expected data.tasks or data.source, got {given}; set one of them")
        inner = self._inner if self._tasks is None else self._tasks.source
        assert inner is not None
        return AgentSource(inner, self.agent, replace(self.settings))

    def unmade(self) -> Self:
        """A copy for another process; the data module whose tasks are played makes its source there, too."""
        alone = super().unmade()
        alone._tasks = self._tasks.unmade() if self._tasks else None
        return alone

    def files(self) -> list[str]:
        """Files that the tasks come from."""
        return self._tasks.files() if self._tasks else []
