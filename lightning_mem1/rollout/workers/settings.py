"""What a YAML says about the workers that play episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar, Literal, get_args

from lightning_mem1.checks import Range, Ranges, check_choice, check_numbers

WorkerKind = Literal["none", "processes", "ray"]


@dataclass
class WorkerSettings:
    """Where training episodes are played.

    Args:
        kind: none (in the process that trains), processes (of this machine), or ray (a Ray cluster; extra ray).
        count: Workers, each with its own engine, task source and environments.
        num_threads: Threads of a worker's engine on a CPU; null for this machine's cores over `count`.
        device: cpu or cuda; null for the kind of device that trains. Worker n of kind processes takes GPU n, over again
            from the first where there are fewer; with kind ray the cluster says which.
        address: Of the Ray cluster, such as auto or ray://HOST:10001; null starts one on this machine.
        resources: What Ray sets aside for each worker: num_cpus, num_gpus, or names of your own; null for one CPU.
        max_staleness: rl_steps that the weights which sampled a turn may lag behind those that learn from it. Above 0
            workers play so many rl_steps ahead while updates run, and continue episodes with newer weights; it needs
            `model.mismatch.correction`.
    """

    kind: WorkerKind = "none"
    count: int = 2
    num_threads: int | None = None
    device: Literal["cpu", "cuda"] | None = None
    address: str | None = None
    resources: Mapping[str, float] | None = None
    max_staleness: int = 0
    ranges: ClassVar[Ranges] = {
        "count": Range(1, 4096),
        "num_threads": Range(1, 4096),
        "max_staleness": Range(0, 64),
    }

    def __post_init__(self) -> None:
        check_choice("kind of workers", self.kind, get_args(WorkerKind), "model.rollout.workers.kind")
        check_numbers("model.rollout.workers", WorkerSettings, vars(self))
        if self.max_staleness and not self.on:
            raise ValueError(
                f"nobody to play ahead: expected workers for max_staleness {self.max_staleness}, got kind none; set "
                "model.rollout.workers.kind processes or ray, or model.rollout.workers.max_staleness 0"
            )
        if self.kind == "ray" and find_spec("ray") is None:
            raise ValueError(
                "model.rollout.workers.kind ray needs Ray: expected the package ray in this environment, got none; "
                "pip install 'lightning-mem1[ray]', or set model.rollout.workers.kind processes"
            )

    @property
    def on(self) -> bool:
        """Whether there are workers."""
        return self.kind != "none"
