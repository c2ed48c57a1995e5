"""One job at a time in a thread of its own, whose outcome, an exception too, comes out where it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")
LEAVE_S = 60.0  # longest wait for a job that was asked to stop: an environment that hangs must not hold Ctrl-C up


class Stopped(Exception):
    """The job was asked to stop."""


class BackgroundJob(Generic[T]):
    """Runs a job in parallel to the thread that asked for it."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._outcome: Future[T] | None = None
        self._interrupt: Callable[[], None] = lambda: None

    def start(self, job: Callable[[], T], interrupt: Callable[[], None] = lambda: None) -> None:
        """Start a job; what came of the one before has been taken.

        Args:
            job: What to do; it calls `check` now and then, in its own thread.
            interrupt: Ends what the job may be waiting for.
        """
        assert self._thread is None
        outcome: Future[T] = Future()

        def work() -> None:
            try:
                outcome.set_result(job())
            except BaseException as error:  # also Ctrl-C inside an environment: it ends the run, not a thread
                outcome.set_exception(error)

        self._outcome, self._interrupt = outcome, interrupt
        self._thread = threading.Thread(target=work, daemon=True, name="collection")
        self._thread.start()

    def check(self, *_: Any) -> None:
        """Called by the job, with whatever it has at hand: raises Stopped once it is to stop."""
        if threading.current_thread() is not self._thread:
            raise Stopped

    def wait(self) -> None:
        """Until the job, if there is one, has ended; raises what it raised."""
        if self._outcome is not None:
            self._outcome.result()

    def take(self) -> T | None:
        """What came of the job, None without one; raises what it raised."""
        if self._outcome is None or self._thread is None:
            return None
        found = self._outcome.result()
        self._thread.join()
        self._thread = self._outcome = None
        return found

    def stop(self) -> None:
        """End the job and forget what came of it."""
        thread, self._thread, self._outcome = self._thread, None, None
        if thread is not None:
            self._interrupt()
            thread.join(LEAVE_S)
