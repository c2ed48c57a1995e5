"""What an environment may do to a rollout: it has so much time, and what it replies is checked before it is used.

Whatever an environment raises arrives as an `EnvError`, `sys.exit` and a cancelled task too; only Ctrl-C does not.

The time limit lets the rollout continue. It does not end the call: Python cannot stop a thread. A call that never
returns keeps its thread (and whatever it holds) until the process ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import numpy as np

from lightning_mem1.rollout.plain_values import UNPRINTABLE, bounded, plain, valid_text
from lightning_mem1.types import Env, StepResult, Task

T = TypeVar("T")
NUMBERS = ("success", "em", "f1", "search")  # entries of `StepResult.info` that metrics are made of
MAX_NUMBER = 1e9  # of a reward or a metric: squares and sums of larger ones leave float32
MAX_ERROR_CHARS = 300


class EnvError(Exception):
    """What went wrong in an environment, as text: the error itself may not even be printable.

    Attributes:
        at: ``file:line`` where it was raised; empty when nobody knows.
    """

    def __init__(self, message: str, at: str = "") -> None:
        super().__init__(message)
        self.at = at

    @classmethod
    def of(cls, error: BaseException) -> EnvError:
        """The error of an environment, its name before its message."""
        if isinstance(error, EnvError):
            return error
        try:
            message = str(error)[: 4 * MAX_ERROR_CHARS]
        except Exception:
            message = UNPRINTABLE
        text = " ".join(valid_text(f"{type(error).__name__}: {message}").split())
        return cls(text[:MAX_ERROR_CHARS], _place(error))


def _place(error: BaseException) -> str:
    """``file:line`` of the innermost frame."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame else ""


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
            EnvError: it took too long, it is no text, or the environment failed.
        """
        return self._checked(lambda: _text("observe()", self._within(env.observe, "observe()")))

    def look(self, env: Env) -> StepResult:
        """What an environment shows now, as the reply to an action that is not the environment's to carry out.

        Raises:
            EnvError: as `observe`.
        """
        return self._checked(
            lambda: checked(StepResult(_text("observe()", self._within(env.observe, "observe()"))), self.max_chars)
        )

    def step(self, env: Env, action: str) -> StepResult:
        """Carry out an action; the answer holds plain values of the types that `StepResult` names.

        Raises:
            EnvError: it took too long, the reply is not what `StepResult` says, or the environment failed.
        """
        return self._checked(lambda: checked(self._within(lambda: env.step(action), "step()"), self.max_chars))

    def close(self) -> None:
        """Let the thread end; one that was left behind ends when its call returns."""
        if self._calls:
            self._calls.put(None)
        self._calls = None

    def _checked(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise EnvError.of(error) from None

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
    reward = _number("an environment's reward", result.reward)
    done, valid = (_flag(name, getattr(result, name)) for name in ("done", "valid"))
    information = bounded(_text("information", result.information), max_chars)
    return StepResult(information, reward, done, valid, _info(result.info, max_chars))


def _number(name: str, value: Any) -> float:
    """A number of Python's or numpy's own that float32 can square."""
    if isinstance(value, np.bool_):
        return float(value)
    try:
        number = float(value) if isinstance(value, Real) else math.nan
    except OverflowError:
        number = math.inf
    if not abs(number) <= MAX_NUMBER:
        raise ValueError(f"expected {name} to be a finite number of at most {MAX_NUMBER:g}, got {_shown(value)}")
    return number


def _flag(name: str, value: Any) -> bool:
    if isinstance(value, bool | np.bool_) or (isinstance(value, int | float) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"expected {name} to be True or False, got {_shown(value)}")


def _shown(value: Any) -> str:
    """A value and its type, for a message: ``'1.0' (str)``."""
    shown = plain(value, max_chars=50)
    return f"{shown!r} ({type(value).__name__})" if isinstance(value, str) else f"{shown} ({type(value).__name__})"


def _info(info: Any, max_chars: int) -> dict[str, Any]:
    """Numbers and words for metrics and transcripts."""
    if not isinstance(info, Mapping):
        raise TypeError(f"expected info to be a dict, got {type(info).__name__}")
    numbers = {name: _number(f"info['{name}']", info[name]) for name in NUMBERS if name in info}
    values = plain(info, max_chars)
    return {**values, **numbers} if isinstance(values, dict) else dict(numbers)


def _text(name: str, value: Any) -> str:
    """A text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise TypeError(f"expected {name} to be text, got {type(value).__name__}")
    return valid_text(value)


def checked_task(task: Task) -> Task:
    """A copy of a task that its environment does not hold, its words valid text.

    Raises:
        EnvError: a field is not what `Task` says.
    """
    problem = ""
    for name, kind in (("id", str), ("prompt", str), ("max_turns", int)):
        if not isinstance(value := getattr(task, name), kind) or isinstance(value, bool):
            problem = problem or f"expected a task's {name} to be {kind.__name__}, got {_shown(value)}"
    if problem:
        raise EnvError(f"TypeError: {problem}")
    return replace(task, id=valid_text(task.id), prompt=valid_text(task.prompt))
