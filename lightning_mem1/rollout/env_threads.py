"""Environment steps in threads, while the engine continues with other episodes.

When a reply is taken in is counted in passes of the engine, never in seconds: what is in a batch together, and so every
last digit, is the same however long the replies took.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from lightning_mem1.types import StepResult

T = TypeVar("T")


class EnvThreads:
    """Steps under way, each due a number of passes after it was begun.

    Args:
        num_threads: Steps that run at once.
        max_passes: Passes that the engine may make meanwhile; then the step is waited for.
    """

    def __init__(self, num_threads: int, max_passes: int) -> None:
        self.max_passes = max_passes
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="env")
        self._under_way: deque[tuple[int, int, Future[StepResult]]] = deque()  # pass it is due in, session, result
        self._pass = 0

    @property
    def pending(self) -> int:
        """Steps begun and not yet taken in."""
        return len(self._under_way)

    def begin(self, session: int, step: Callable[[T], StepResult], action: T) -> None:
        """Carry out an action of a session in a thread."""
        self._under_way.append((self._pass + self.max_passes, session, self._threads.submit(step, action)))

    def due(self, idle: bool) -> Iterator[tuple[int, Future[StepResult]]]:
        """End a pass: the sessions whose steps are due now, in the order they were begun, and what came of them.

        Args:
            idle: The engine has nothing left to do, so that the next steps are due at once.
        """
        if idle and self._under_way:
            self._pass = max(self._pass, self._under_way[0][0])
        while self._under_way and self._under_way[0][0] <= self._pass:
            _, session, future = self._under_way.popleft()
            yield session, future
        self._pass += 1

    def close(self) -> None:
        """Wait for what runs and end the threads."""
        self._threads.shutdown(cancel_futures=True)
