"""What an environment may do to a rollout: it has so much time, and what it answers is looked at before it is used.

The time limit lets the rollout go on, it does not end the call: Python cannot stop a thread. A call that never returns
keeps its thread (and whatever it holds) until the process ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from lightning_mem1.types import Env, StepResult

T = TypeVar("T")
NUMBERS = ("success", "em", "f1", "search")  # entries of `StepResult.info` that metrics are made of


class EnvGuard:
    """Calls environments.

    Without a limit calls happen in the thread of the caller. With one they happen in a single other thread, which
    is left behind when a call does not return in time; the next call then gets a fresh one.

    Args:
        timeout_s: Limit of one call of `observe` or `step`; None for no limit.
        max_chars: Longest text of a reply that is kept; a longer one loses its middle.
    """

    def __init__(self, timeout_s: float | None, max_chars: int = 64_000) -> None:
        self.timeout_s, self.max_chars = timeout_s, max_chars
        self._calls: SimpleQueue[Callable[[], Any] | None] | None = None
        self._answers: SimpleQueue[_Answer] = SimpleQueue()

    def observe(self, env: Env) -> str:
        """What an environment shows first, however long.

        Raises:
            TimeoutError: it took too long.
            TypeError: it is no text.
            Exception: whatever the environment raises.
        """
        return _text("observe()", self._within(env.observe, "observe()"))

    def step(self, env: Env, action: str) -> StepResult:
        """Carry out an action; the answer holds plain values of the types that `StepResult` names.

        Raises:
            TimeoutError: it took too long.
            TypeError, ValueError: the answer is not what `StepResult` says.
            Exception: whatever the environment raises.
        """
        return checked(self._within(lambda: env.step(action), "step()"), self.max_chars)

    def close(self) -> None:
        """Let the thread end; one that was left behind ends when its call returns."""
        if self._calls:
            self._calls.put(None)
        self._calls = None

    def _within(self, call: Callable[[], T], name: str) -> T:
        if self.timeout_s is None:
            return call()
        if self._calls is None:
            self._calls, self._answers = SimpleQueue(), SimpleQueue()
            Thread(target=_serve, args=(self._calls, self._answers), name="environments", daemon=True).start()
        self._calls.put(call)
        try:
            answer = self._answers.get(timeout=self.timeout_s)
        except Empty:
            self.close()
            raise TimeoutError(
                f"expected {name} to return within {self.timeout_s:g} s, got nothing; fix the environment or raise "
                "model.rollout.env_timeout_s"
            ) from None
        if answer.error:
            raise answer.error
        return answer.value  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Answer:
    value: Any = None
    error: BaseException | None = None


def _serve(calls: SimpleQueue[Callable[[], Any] | None], answers: SimpleQueue[_Answer]) -> None:
    """Answer calls until there is a None; nobody reads the answer of one that came too late."""
    while (call := calls.get()) is not None:
        try:
            answer = _Answer(call())
        except BaseException as error:  # re-raised where the reply is awaited
            answer = _Answer(error=error)
        answers.put(answer)


def checked(result: Any, max_chars: int) -> StepResult:
    """The answer to an action as plain values.

    Args:
        result: What an environment returned.
        max_chars: Longer texts lose their middle.

    Raises:
        TypeError, ValueError: it is not what `StepResult` says.
    """
    if not isinstance(result, StepResult):
        raise TypeError(f"expected step() to return a StepResult, got {type(result).__name__}")
    if not isinstance(result.reward, Real) or not math.isfinite(result.reward):
        raise ValueError(f"an environment's reward must be a finite number, got {str(result.reward)[:50]}")
    for name in ("done", "valid"):
        if getattr(result, name) not in (True, False):
            raise TypeError(f"expected {name} to be True or False, got {str(getattr(result, name))[:50]}")
    information = bounded(_text("information", result.information), max_chars)
    info = _info(result.info, max_chars)
    return StepResult(information, float(result.reward), bool(result.done), bool(result.valid), info)


def _info(info: Any, max_chars: int) -> dict[str, Any]:
    """Numbers and words for metrics and transcripts."""
    if not isinstance(info, Mapping):
        raise TypeError(f"expected info to be a dict, got {type(info).__name__}")
    for name in NUMBERS:
        number = info.get(name, 0.0)
        if not isinstance(number, Real) or not math.isfinite(number):
            raise ValueError(f"expected info['{name}'] to be a finite number, got {str(number)[:50]}")
    return {str(key): bounded(value, max_chars) if isinstance(value, str) else value for key, value in info.items()}


def _text(name: str, value: Any) -> str:
    """A text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise TypeError(f"expected {name} to be text, got {type(value).__name__}")
    return value.encode("utf-8", "replace").decode()


def bounded(text: str, max_chars: int) -> str:
    """A text without its middle when it is longer: a reply of megabytes is not worth its tokenising.

    >>> bounded("0123456789", 4)
    '0189'
    """
    head = max_chars // 2
    return text if len(text) <= max_chars else text[:head] + text[len(text) - (max_chars - head) :]
