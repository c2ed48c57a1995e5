"""The workers that the settings name."""

from __future__ import annotations

import os

from lightning_mem1.rollout.workers.job import Plan
from lightning_mem1.rollout.workers.job_queue import JobQueue
from lightning_mem1.rollout.workers.pool import Crew, WorkerPool
from lightning_mem1.rollout.workers.processes import Processes
from lightning_mem1.rollout.workers.settings import WorkerSettings


def make_workers(plan: Plan, settings: WorkerSettings) -> WorkerPool | JobQueue:
    """Workers, which start at the first job; a `JobQueue` of them where they play ahead.

    Raises:
        ValueError: a task source that cannot be sent, or a cluster that is not there.
    """
    crew = _crew(plan, settings)
    return JobQueue(crew) if settings.max_staleness else WorkerPool(crew)


def _crew(plan: Plan, settings: WorkerSettings) -> Crew:
    if settings.kind == "ray":
        from lightning_mem1.rollout.workers.ray_actors import RayActors

        renews = settings.max_staleness > 0
        return RayActors(plan, settings.count, settings.address, settings.resources, renews)
    return Processes(plan, settings.count)


def num_threads(settings: WorkerSettings) -> int:
    """Threads of each worker's engine."""
    return settings.num_threads or max(1, (os.cpu_count() or 1) // settings.count)
