"""The workers that the settings name."""

from __future__ import annotations

import os

from lightning_mem1.rollout.workers.job import Plan
from lightning_mem1.rollout.workers.pool import WorkerPool
from lightning_mem1.rollout.workers.processes import Processes
from lightning_mem1.rollout.workers.settings import WorkerSettings


def make_workers(plan: Plan, settings: WorkerSettings) -> WorkerPool:
    """A pool of workers; they start at the first job.

    Raises:
        ValueError: a task source that cannot be sent, or a cluster that is not there.
    """
    if settings.kind == "ray":
        from lightning_mem1.rollout.workers.ray_actors import RayActors

        return WorkerPool(RayActors(plan, settings.count, settings.address, settings.resources))
    return WorkerPool(Processes(plan, settings.count))


def num_threads(settings: WorkerSettings) -> int:
    """Threads of each worker's engine."""
    return settings.num_threads or max(1, (os.cpu_count() or 1) // settings.count)
