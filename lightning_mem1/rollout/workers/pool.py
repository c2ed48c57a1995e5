"""One queue for all workers: whoever is free takes the next job. A worker that dies is replaced, its job played again.

Seeds belong to trajectories, so who plays a job, and how often it was begun, changes nothing in what comes back.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from lightning_mem1.rollout.workers.job import Job, Weights
from lightning_mem1.types import Trajectory

OnJob = Callable[[list[Trajectory]], None]
MAX_TRIES = 3  # of a job, before what kills workers is taken to be in its episodes


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        worker: Who had it.
        trajectories: What was played; None when the worker died.
    """

    worker: int
    trajectories: list[Trajectory] | None


class Crew(Protocol):
    """Workers of one kind."""

    count: int

    def send(self, worker: int, job: Job, weights: Weights) -> None:
        """Give a job to a worker that has none."""
        ...

    def renew(self, worker: int, weights: Weights) -> None:
        """Give newer weights to a worker in the middle of a job, which it continues with them."""
        ...

    def receive(self, timeout_s: float) -> Outcome | None:
        """The next job that is over, None after the timeout. A worker that died is replaced before this returns.

        Raises:
            ValueError: a worker cannot be made, in one line.
        """
        ...

    def close(self) -> None:
        """End every worker."""
        ...


@dataclass
class WorkerStats:
    """Counts since the start, and what was measured over the last `play`; in a `JobQueue` since the one before.

    Attributes:
        restarts: Workers that died and were replaced.
        waiting_share: Share of the workers' time in which they had no job.
        seconds: Wall clock.
    """

    restarts: int = 0
    waiting_share: float = 0.0
    seconds: float = 0.0

    def numbers(self) -> dict[str, float]:
        """What to log, see `RolloutCallback`."""
        return {"worker_restarts": float(self.restarts), "waiting_share": self.waiting_share}


@dataclass
class WorkerPool:
    """Plays jobs on a crew, and returns when all are over."""

    crew: Crew
    stats: WorkerStats = field(default_factory=WorkerStats)

    def play(
        self,
        jobs: Sequence[Job],
        weights: Weights,
        on_job: OnJob = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> list[Trajectory]:
        """Play jobs to their ends.

        Args:
            jobs: What to play.
            weights: What to play with.
            on_job: Called with the trajectories of each job as it ends.
            check: Called every now and then; what it raises ends this.

        Returns:
            Trajectories in the order of jobs.
        """
        shift = Shift(self.crew, weights)
        numbers, started = shift.add(jobs), time.perf_counter()
        while len(shift.done) < len(jobs):
            shift.hand_out()
            check()
            outcome = self.crew.receive(timeout_s=0.5)
            if outcome is None:
                continue
            self.stats.restarts += outcome.trajectories is None
            if (played := shift.take(outcome)) is not None:
                on_job(played)
        self.stats.seconds = time.perf_counter() - started
        self.stats.waiting_share = idle_share(shift.busy_seconds(), self.stats.seconds, self.crew.count)
        return shift.collected(numbers)

    def close(self) -> None:
        """End every worker."""
        self.crew.close()


class Shift:
    """Jobs on a crew: who has which, what is done.

    Args:
        crew: The workers.
        weights: What they play with.
    """

    def __init__(self, crew: Crew, weights: Weights | None = None) -> None:
        self.crew, self.weights = crew, weights
        self.jobs: dict[int, Job] = {}  # waiting or under way
        self.waiting: deque[int] = deque()
        self.free = list(range(crew.count))[::-1]
        self.working: dict[int, tuple[int, float]] = {}  # worker -> its job and when it was handed out
        self.done: dict[int, list[Trajectory]] = {}
        self.tries: Counter[int] = Counter()
        self._numbers, self._busy_s = count(), 0.0

    def add(self, jobs: Sequence[Job], first: bool = False) -> list[int]:
        """Let jobs wait, behind the others or in front of them; returns their numbers."""
        numbers = [next(self._numbers) for _ in jobs]
        self.jobs |= dict(zip(numbers, jobs, strict=True))
        self.waiting = deque([*numbers, *self.waiting] if first else [*self.waiting, *numbers])
        return numbers

    def renew(self, weights: Weights) -> None:
        """Play with these weights from now on, what is under way too."""
        if self.weights and (self.weights.version, self.weights.key) == (weights.version, weights.key):
            return
        self.weights = weights
        for worker in self.working:
            self.crew.renew(worker, weights)

    def hand_out(self) -> None:
        """Give the free workers what is waiting."""
        while self.free and self.waiting and self.weights is not None:
            worker, number = self.free.pop(), self.waiting.popleft()
            self.tries[number] += 1
            self.working[worker] = number, time.perf_counter()
            self.crew.send(worker, self.jobs[number], self.weights)

    def take(self, outcome: Outcome) -> list[Trajectory] | None:
        """Keep what a job gave; one whose worker died waits again, in front of the others."""
        number, began = self.working.pop(outcome.worker)
        self._busy_s += time.perf_counter() - began
        self.free.append(outcome.worker)
        played = outcome.trajectories
        if played is None and self.tries[number] < MAX_TRIES:
            self.waiting.appendleft(number)
            return None
        job = self.jobs.pop(number)
        if played is None:
            played = job.failed(f"worker: {MAX_TRIES} processes in a row died while they played this job")
        self.done[number] = played
        return played

    def collected(self, numbers: Sequence[int]) -> list[Trajectory]:
        """Take what jobs gave away, in their order."""
        return [trajectory for number in numbers for trajectory in self.done.pop(number)]

    def busy_seconds(self) -> float:
        """For how long workers have had jobs, all of them together."""
        now = time.perf_counter()
        return self._busy_s + sum(now - began for _, began in self.working.values())


def idle_share(busy_s: float, seconds: float, num_workers: int) -> float:
    """Share of the workers' time in which they had no job.

    >>> idle_share(6.0, 4.0, 2)
    0.25
    """
    return max(0.0, 1.0 - busy_s / (seconds * num_workers)) if seconds else 0.0
