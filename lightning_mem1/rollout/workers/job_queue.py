"""Workers that play ahead: jobs of coming rl_steps are begun early, and played while the process that trains updates.

A thread of its own hands jobs out and takes in what they gave. Jobs that somebody waits for go in front of those that
were begun for later. When new weights come, jobs under way are continued with them, see `renewal`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from lightning_mem1.rollout.workers.job import Job, Weights
from lightning_mem1.rollout.workers.pool import Crew, OnJob, Shift, WorkerStats, idle_share
from lightning_mem1.types import Trajectory

POLL_S = 0.05  # how long a job or new weights may wait for the thread, which waits for outcomes
CHECK_S = 0.5


class JobQueue:
    """Plays jobs on a crew, some of them before they are asked for; its methods belong to one thread.

    Args:
        crew: The workers; from here on they belong to the queue's thread.
    """

    def __init__(self, crew: Crew) -> None:
        self.crew, self.stats = crew, WorkerStats()
        self._shift = Shift(crew)
        self._begun: dict[int, Job] = {}  # by number: jobs that nobody has waited for yet
        self._renewed: Weights | None = None  # what the thread has yet to pass on
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._closed = False
        self._since, self._busy_s = time.perf_counter(), 0.0
        self._thread = threading.Thread(target=self._work, daemon=True, name="job queue")
        self._thread.start()

    def renew(self, weights: Weights) -> None:
        """Play with these weights from now on, what is under way too."""
        with self._changed:
            self._renewed = weights
            self._changed.notify_all()

    def begin(self, jobs: Sequence[Job]) -> None:
        """Have jobs played behind all others; a later `play` of the same jobs takes what they gave."""
        with self._changed:
            self._begun |= dict(zip(self._shift.add(jobs), jobs, strict=True))
            self._changed.notify_all()

    def forget(self) -> None:
        """Give up the jobs that were begun and that nobody waits for."""
        with self._changed:
            self._shift.waiting = type(self._shift.waiting)(n for n in self._shift.waiting if n not in self._begun)
            self._begun = {}

    def play(
        self,
        jobs: Sequence[Job],
        weights: Weights,
        on_job: OnJob = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> list[Trajectory]:
        """See `WorkerPool.play`; jobs that were begun are waited for, others go in front of those that wait.

        Raises:
            ValueError: a worker cannot be made, in one line.
        """
        with self._changed:
            self._renewed = weights
            found = [self._taken_over(job) for job in jobs]
            fresh = iter(self._shift.add([job for job, n in zip(jobs, found, strict=True) if n is None], first=True))
            numbers = [next(fresh) if number is None else number for number in found]
            self._changed.notify_all()
        self._wait(numbers, on_job, check)
        with self._changed:
            self._measure()
            return self._shift.collected(numbers)

    def close(self) -> None:
        """End the thread and every worker."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self.crew.close()

    def _taken_over(self, job: Job) -> int | None:
        """The number of a job that was begun."""
        number = next((number for number, begun in self._begun.items() if begun.same_as(job)), None)
        if number is not None:
            del self._begun[number]
        return number

    def _wait(self, numbers: Sequence[int], on_job: OnJob, check: Callable[[], None]) -> None:
        reported: set[int] = set()
        while len(reported) < len(numbers):
            with self._changed:
                if self._error is not None:
                    raise self._error
                over = [number for number in numbers if number in self._shift.done and number not in reported]
                if not over:
                    self._changed.wait(CHECK_S)
                played = [self._shift.done[number] for number in over]
            for each in played:
                on_job(each)
            reported.update(over)
            check()

    def _measure(self) -> None:
        now, busy_s = time.perf_counter(), self._shift.busy_seconds()
        self.stats.seconds = now - self._since
        self.stats.waiting_share = idle_share(busy_s - self._busy_s, self.stats.seconds, self.crew.count)
        self._since, self._busy_s = now, busy_s

    def _work(self) -> None:
        """What the thread does."""
        try:
            while self._passed_on():
                outcome = self.crew.receive(POLL_S)
                if outcome is not None:
                    with self._changed:
                        self.stats.restarts += outcome.trajectories is None
                        self._shift.take(outcome)
                        self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _passed_on(self) -> bool:
        """Pass weights and jobs on, as soon as somebody has work; False once the queue is closed."""
        with self._changed:
            while not self._closed:
                if self._renewed is not None:
                    self._shift.renew(self._renewed)
                    self._renewed = None
                self._shift.hand_out()
                if self._shift.working:
                    return True
                self._changed.wait()
        return False
