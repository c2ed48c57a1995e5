"""What goes out to workers and what comes back. All of it can be pickled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import cloudpickle
import torch
from torch import Tensor

from lightning_mem1.context.settings import MemorySetting
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.settings import LoraSettings
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import StopReason, Task, TaskSource, Trajectory


@dataclass(frozen=True)
class Plan:
    """What a worker is made of.

    Attributes:
        make_source: Makes the task source, whose environments are then made in the worker.
        policy: Where the base comes from, see `Policy.load`.
        lora: The adapter's settings, so that weights fit; None for full training.
        compute: Further arguments of `Policy.load`.
        engine: Settings of the worker's engine.
        memory: Memory mode, as plain settings.
        device: cpu or cuda.
        num_threads: Threads on a CPU.
    """

    make_source: Callable[[], TaskSource]
    policy: str
    lora: LoraSettings | None
    compute: Mapping[str, Any]
    engine: EngineSettings
    memory: MemorySetting
    device: str
    num_threads: int


def pickled(plan: Plan) -> bytes:
    """A plan as bytes, with what a notebook or a script has defined itself.

    Raises:
        ValueError: it holds what belongs to this process.
    """
    try:
        return cloudpickle.dumps(plan)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"tasks that cannot be sent to workers: expected a data module that can be pickled, got one that cannot "
            f"({reason}); open files and connections in make_source, or set model.rollout.workers.kind none"
        ) from error


@dataclass(frozen=True)
class Part:
    """A task and the episodes that are to be played of it.

    Attributes:
        task: The task.
        group: Number that its episodes share.
        seeds: One for each episode.
    """

    task: Task
    group: int
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """What one worker plays at once: tasks with all their episodes."""

    parts: tuple[Part, ...]
    settings: RolloutSettings

    def same_as(self, other: Job) -> bool:
        """Whether both play the same episodes in the same way."""
        episodes, others = ([(part.group, part.seeds) for part in job.parts] for job in (self, other))
        return episodes == others and self.settings == other.settings

    def failed(self, problem: str) -> list[Trajectory]:
        """The trajectories of a job that no worker lived through."""
        return [
            Trajectory(part.task, [], [], StopReason.ERROR, part.group, seed, error=problem)
            for part in self.parts
            for seed in part.seeds
        ]


@dataclass(frozen=True)
class Weights:
    """The policy's trained weights.

    Attributes:
        version: The rl_step that they are of.
        state: Names and tensors on the CPU, see `Policy.adapter_state`.
        key: Equal keys, equal weights.
    """

    version: int
    state: Mapping[str, Tensor]
    key: str

    @classmethod
    def of(cls, version: int, state: Mapping[str, Tensor]) -> Weights:
        """Weights with a key made of their bytes."""
        known = blake2b(digest_size=16)
        for name, tensor in sorted(state.items()):
            known.update(name.encode())
            known.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
        return cls(version, state, known.hexdigest())


@dataclass(frozen=True)
class SentWeights:
    """Weights as they reach a worker, which fetches them only when it has others.

    Attributes:
        version, key: Those of `Weights`.
        fetch: Gives their names and tensors.
    """

    version: int
    key: str
    fetch: Callable[[], Mapping[str, Tensor]]


def jobs_of(parts: Sequence[Part], settings: RolloutSettings, num_workers: int, jobs_each: int = 4) -> list[Job]:
    """Deal tasks into jobs: small enough that nobody waits long for the last one, large enough to be played together.

    Args:
        parts: Tasks in order.
        settings: How their episodes are sampled.
        num_workers: Who shares them.
        jobs_each: About how many jobs a worker gets.

    >>> [len(job.parts) for job in jobs_of([Part(None, n, (0,)) for n in range(5)], None, 1, 2)]
    [3, 2]
    """
    size = max(1, -(-len(parts) // (num_workers * jobs_each)))
    return [Job(tuple(parts[first : first + size]), settings) for first in range(0, len(parts), size)]
