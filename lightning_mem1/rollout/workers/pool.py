"""One queue for all workers: whoever is free takes the next job. A worker that dies is replaced, its job played again.

Seeds belong to trajectories, so who plays a job, and how often it was begun, changes nothing in what comes back.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lightning_mem1.rollout.workers.job import Job, Weights
from lightning_mem1.types import Trajectory

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
    """Counts since the start, and shares of the last `play`.

    Attributes:
        restarts: Workers that died and were replaced.
        waiting_share: Share of the workers' time in which they had no job.
    """

    restarts: int = 0
    waiting_share: float = 0.0

    def numbers(self) -> dict[str, float]:
        """What to log, see `RolloutCallback`."""
        return {"worker_restarts": float(self.restarts), "waiting_share": self.waiting_share}


@dataclass
class WorkerPool:
    """Plays jobs on a crew."""

    crew: Crew
    stats: WorkerStats = field(default_factory=WorkerStats)

    def play(
        self,
        jobs: Sequence[Job],
        weights: Weights,
        on_job: Callable[[list[Trajectory]], None] = lambda _: None,
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
        shift = _Shift(self.crew, deque(range(len(jobs))), jobs, weights)
        while shift.unfinished:
            shift.hand_out()
            check()
            outcome = self.crew.receive(timeout_s=0.5)
            if outcome is None:
                continue
            self.stats.restarts += outcome.trajectories is None
            if (played := shift.take(outcome)) is not None:
                on_job(played)
        self.stats.waiting_share = shift.waiting_share()
        return [trajectory for number in range(len(jobs)) for trajectory in shift.done[number]]

    def close(self) -> None:
        """End every worker."""
        self.crew.close()


class _Shift:
    """The jobs of one `play`: who has which, what is done."""

    def __init__(self, crew: Crew, waiting: deque[int], jobs: Sequence[Job], weights: Weights) -> None:
        self.crew, self.waiting, self.jobs, self.weights = crew, waiting, jobs, weights
        self.free = list(range(crew.count))[::-1]
        self.working: dict[int, tuple[int, float]] = {}  # worker -> its job and when it was handed out
        self.done: dict[int, list[Trajectory]] = {}
        self.tries: Counter[int] = Counter()
        self.started, self.busy_s = time.perf_counter(), 0.0

    @property
    def unfinished(self) -> bool:
        return len(self.done) < len(self.jobs)

    def hand_out(self) -> None:
        """Give the free workers what is waiting."""
        while self.free and self.waiting:
            worker, number = self.free.pop(), self.waiting.popleft()
            self.tries[number] += 1
            self.working[worker] = number, time.perf_counter()
            self.crew.send(worker, self.jobs[number], self.weights)

    def take(self, outcome: Outcome) -> list[Trajectory] | None:
        """Keep what a job gave; one whose worker died waits again, in front of the others."""
        number, began = self.working.pop(outcome.worker)
        self.busy_s += time.perf_counter() - began
        self.free.append(outcome.worker)
        played = outcome.trajectories
        if played is None and self.tries[number] < MAX_TRIES:
            self.waiting.appendleft(number)
            return None
        if played is None:
            played = self.jobs[number].failed(f"worker: {MAX_TRIES} processes in a row died while they played this job")
        self.done[number] = played
        return played

    def waiting_share(self) -> float:
        passed = (time.perf_counter() - self.started) * self.crew.count
        return max(0.0, 1.0 - self.busy_s / passed) if passed else 0.0
