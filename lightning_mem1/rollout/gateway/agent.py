"""Agents: functions of a task and a client, that play an episode in their own way and say what it was worth."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np

from lightning_mem1.rollout.env_guard import EnvError
from lightning_mem1.types import Env, StepResult, Task

Agent = Callable[..., Any]  # async def agent(task, client) -> float | dict, or a plain function


@dataclass(frozen=True)
class AgentSettings:
    """How agents are run.

    Attributes:
        timeout_s: Limit of one episode; None for none.
        max_running: Episodes at once; None for all.
        max_calls: Calls of the policy in one episode.
        host, port: Where the gateway listens while episodes are played; port 0 for a free one.
    """

    timeout_s: float | None = None
    max_running: int | None = None
    max_calls: int = 1000
    host: str = "127.0.0.1"
    port: int = 0


@dataclass(frozen=True)
class AgentEnv:
    """Stands where a task's environment is for the loop of this package: the agent plays by itself.

    Attributes:
        agent: Plays the task.
        settings: How.
        env: The task's environment, for an agent that has a third argument.
    """

    agent: Agent
    settings: AgentSettings
    env: Env | None = None

    def observe(self) -> str:
        """Nothing: only a gateway can play it."""
        return ""

    def step(self, action: str) -> StepResult:
        """Refuse: only a gateway can play it."""
        raise TypeError("an agent is played through the gateway, not action by action")


def arguments(agent: Agent, task: Task, client: Any, env: Env | None) -> tuple[Any, ...]:
    """What an agent is called with: its task, its client, and the task's environment where it takes three."""
    return (task, client, env)[: num_arguments(agent)]


def num_arguments(agent: Agent) -> int:
    """2 or 3; raises ValueError for an agent that cannot be called with that."""
    for count in (3, 2):
        with suppress(TypeError):
            inspect.signature(agent).bind(*[None] * count)
            return count
    name = getattr(agent, "__qualname__", repr(agent))
    raise ValueError(
        f"an agent is called with a task and a client: expected {name}(task, client) or {name}(task, client, env), got "
        f"{name}{inspect.signature(agent)}; fix it, or set data.agent"
    )


def is_async(agent: Agent) -> bool:
    """Whether an agent is a coroutine function."""
    return inspect.iscoroutinefunction(agent) or inspect.iscoroutinefunction(getattr(agent, "__call__", None))  # noqa: B004


@dataclass(frozen=True)
class Ended:
    """How an agent came out.

    Attributes:
        number: Of its episode.
        value: What it returned.
        error: What it raised, or that its time was over.
    """

    number: int
    value: Any = None
    error: EnvError | None = None


class AgentThread:
    """Runs agents at the same time: coroutines in a loop of their own, plain functions in a thread each.

    Python cannot stop a thread: a plain function that does not end in time is left behind, its client locked out.

    Args:
        tell: Called with each `Ended`, from another thread.
    """

    def __init__(self, tell: Callable[[Ended], None]) -> None:
        self._tell = tell
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="agents")
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> AgentThread:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel what still runs; a coroutine that does not let itself be cancelled is left behind."""
        with suppress(TimeoutError):
            self.run(self._cancel(), timeout_s=2.0)
        self._loop.call_soon_threadsafe(self._loop.stop)

    def run(self, coroutine: Any, timeout_s: float | None = None) -> Any:
        """Run a coroutine in the agents' loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    def start(self, number: int, agent: Agent, given: tuple[Any, ...], timeout_s: float | None) -> None:
        """Run an agent."""

        def begin() -> None:
            task = self._loop.create_task(self._play(number, agent, given, timeout_s))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._loop.call_soon_threadsafe(begin)

    async def _play(self, number: int, agent: Agent, given: tuple[Any, ...], timeout_s: float | None) -> None:
        running = asyncio.ensure_future(_guarded(agent, given) if is_async(agent) else self._in_thread(agent, given))
        self._tasks.add(running)  # type: ignore[arg-type]
        running.add_done_callback(self._tasks.discard)  # type: ignore[arg-type]
        await asyncio.wait({running}, timeout=timeout_s)  # not wait_for: it would wait for one that cannot be cancelled
        if not running.done():
            running.cancel()
            limit = f"expected the agent to end within {timeout_s:g} s, got nothing (data.timeout_s)"
            self._tell(Ended(number, error=EnvError.of(TimeoutError(limit))))
        elif running.cancelled():
            self._tell(Ended(number, error=EnvError("CancelledError: the agent cancelled itself")))
        elif (error := running.exception()) is not None:
            self._tell(Ended(number, error=EnvError.of(error)))
        else:
            self._tell(Ended(number, running.result()))

    def _in_thread(self, agent: Agent, given: tuple[Any, ...]) -> Any:
        done: Future[Any] = Future()

        def play() -> None:
            try:
                value = agent(*given)
            except BaseException as error:  # sys.exit of somebody's code too: it ends its own episode
                known = EnvError.of(error)
                _settle(done, lambda: done.set_exception(known))
            else:
                _settle(done, lambda: done.set_result(value))

        threading.Thread(target=play, daemon=True, name="agent").start()
        return asyncio.wrap_future(done, loop=self._loop)

    async def _cancel(self) -> None:
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)


async def _guarded(agent: Agent, given: tuple[Any, ...]) -> Any:
    try:
        return await agent(*given)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # sys.exit would end the loop of all of them
        raise EnvError.of(error) from None


def _settle(done: Future[Any], how: Callable[[], None]) -> None:
    if done.set_running_or_notify_cancel():
        how()


def outcome(value: Any) -> StepResult:
    """What an agent returned, a number or a dict with a number ``reward``, as the last step of its episode.

    Raises:
        ValueError: it is neither.
    """
    info = {str(key): each for key, each in value.items()} if isinstance(value, Mapping) else {}
    reward = info.pop("reward", None) if isinstance(value, Mapping) else value
    if not isinstance(reward, Real | np.bool_) or not isfinite(reward):
        raise ValueError(f"expected the agent to return a finite number, or a dict with 'reward', got {value!r:.80}")
    return StepResult("", reward, done=True, info=info)  # type: ignore[arg-type]  # numpy's numbers; checked there
