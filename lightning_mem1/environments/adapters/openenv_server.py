"""Any task source as an OpenEnv server (extra ``openenv``), so that others can train on its tasks.

```
reset(split="train", index=3)   task 3 of a split; without an index one drawn by `seed`
step({"action": "search[red]"}) {"text": ..., "valid": ...}, reward, done; what else is known is in its metadata
```
The server also counts and names its tasks (`list_splits`, `num_tasks`, `get_task`), as OpenEnv's task API asks.
"""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

from lightning_mem1.environments.adapters.extras import needed
from lightning_mem1.types import Env, Split, Task, TaskSource

SPLITS: tuple[Split, ...] = ("train", "val", "test")
MAX_LISTED = 1000  # tasks of a split that are listed at once


def app(source: TaskSource, name: str, max_sessions: int = 256) -> Any:
    """An ASGI application, for uvicorn or any other server.

    Args:
        source: Makes tasks and environments, shared by all sessions.
        name: Of the environment.
        max_sessions: Episodes at once; further ones are refused.

    Raises:
        ValueError: OpenEnv is not installed.
    """
    server = needed("openenv.core.env_server", "openenv", "openenv", "OpenEnv")
    environment, action, observation = _types()
    return server.create_fastapi_app(
        lambda: environment(source), action, observation, max_concurrent_envs=max_sessions, env_name=name
    )


@lru_cache(maxsize=1)
def _types() -> tuple[Any, Any, Any]:
    """The classes of the environment, its actions and its observations; their bases are OpenEnv's."""
    server = needed("openenv.core.env_server", "openenv", "openenv", "OpenEnv")

    class TextAction(server.Action):  # type: ignore[misc, name-defined]
        """What the agent writes."""

        action: str

    class TextObservation(server.Observation):  # type: ignore[misc, name-defined]
        """What the agent reads, and whether its action could be carried out."""

        text: str
        valid: bool = True

    class SourceEnvironment(_Sessions, server.Environment):  # type: ignore[misc, name-defined]
        """One session: an episode after the other."""

        SUPPORTS_CONCURRENT_SESSIONS = True
        observation_type = TextObservation
        state_type = server.State

        def __init__(self, source: TaskSource) -> None:
            super().__init__()
            self.begin(source)

    return SourceEnvironment, TextAction, TextObservation


class _Sessions:
    """What an environment of OpenEnv does, without its base."""

    observation_type: Any
    state_type: Any

    def begin(self, source: TaskSource) -> None:
        """A session without an episode."""
        self.source = source
        self._task: Task | None = None
        self._env: Env | None = None
        self._episode, self._turns, self._over = "", 0, False

    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        split: str = "train",
        index: int | None = None,
        **_: Any,
    ) -> Any:
        """Begin a task: `index` of a split, else one that `seed` draws.

        Raises:
            ValueError: the split has no tasks.
            IndexError: there is no such split, or no such task.
        """
        size = self.num_tasks(split)
        if not size:
            raise ValueError(f"no tasks: expected some in split {split!r}, got none")
        number = random.Random(seed).randrange(size) if index is None else index
        task = self._at(split, number)
        self._task, self._env = task, self.source.env(task)
        self._episode, self._turns, self._over = episode_id or task.id, 0, False
        text = "\n".join(filter(None, [task.prompt, self._env.observe()]))
        return self.observation_type(text=text, metadata={"task": task.id, "max_turns": task.max_turns})

    def step(self, action: Any, timeout_s: float | None = None, **_: Any) -> Any:
        """Carry out an action; the last turn ends the episode.

        Raises:
            ValueError: there is no episode, or it is over.
        """
        if self._task is None or self._env is None or self._over:
            raise ValueError("expected reset before step, got step: begin an episode first")
        result = self._env.step(action.action)
        self._turns += 1
        self._over = result.done or self._turns >= self._task.max_turns
        left = {"turns_left": self._task.max_turns - self._turns}
        return self.observation_type(
            text=result.information,
            valid=result.valid,
            done=self._over,
            reward=float(result.reward),
            metadata={**dict(result.info), **left},
        )

    @property
    def state(self) -> Any:
        """The episode's name and its turns so far."""
        return self.state_type(episode_id=self._episode or None, step_count=self._turns)

    def list_splits(self) -> list[str]:
        """The splits that have tasks."""
        return [split for split in SPLITS if self.source.size(split)]

    def num_tasks(self, split: str) -> int:
        """Number of tasks in a split; raises IndexError for one that is none."""
        if split not in SPLITS:
            raise IndexError(f"no such split: expected one of {', '.join(SPLITS)}, got {split!r}")
        return self.source.size(split)

    def get_task(self, split: str, index: int) -> dict[str, Any]:
        """A task without its answers."""
        task = self._at(split, index)
        return {"id": task.id, "index": index, "prompt": task.prompt, "max_turns": task.max_turns}

    def list_tasks(self, split: str) -> list[dict[str, Any]]:
        """The first tasks of a split."""
        return self.get_task_range(split, 0, MAX_LISTED)

    def get_task_range(self, split: str, start: int | None = None, stop: int | None = None) -> list[dict[str, Any]]:
        """Tasks of a split, at most so many at once."""
        wanted = range(self.num_tasks(split))[start:stop]
        return [self.get_task(split, index) for index in wanted[:MAX_LISTED]]

    def _at(self, split: str, index: int) -> Task:
        size = self.num_tasks(split)
        if not 0 <= index < size:
            raise IndexError(f"no such task: expected an index from 0 to {size - 1} in split {split!r}, got {index}")
        return self.source.task(split, index)  # type: ignore[arg-type]
