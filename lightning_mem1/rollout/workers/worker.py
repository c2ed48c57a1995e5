"""A worker: it has a policy, an engine and a task source of its own, and plays the jobs that it is sent."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lightning_mem1.engine.factory import AnyEngine, make_engine
from lightning_mem1.policy.policy import Policy
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.episodes import make_env
from lightning_mem1.rollout.workers.job import Job, Plan, SentWeights
from lightning_mem1.rollout.workers.renewal import RenewableEngine
from lightning_mem1.types import Trajectory


class Worker:
    """Plays jobs; the same weights and seeds give the trajectories that the process that trains would have played.

    Args:
        plan: What it is made of.
        number: Its number among the workers.
    """

    def __init__(self, plan: Plan, number: int = 0) -> None:
        torch.set_num_threads(plan.num_threads)
        self.plan, self.version, self._key = plan, 0, ""
        self.source = plan.make_source()
        self.policy = Policy.load(plan.policy, lora=plan.lora, **plan.compute).to(_device(plan.device, number)).eval()
        self._engine: AnyEngine | None = None

    @property
    def engine(self) -> AnyEngine:
        """Its engine, made when the first weights are there."""
        if self._engine is None:
            self._engine = make_engine(self.policy, self.plan.engine, lambda: self.version, training=True)
        return self._engine

    def take(self, weights: SentWeights) -> None:
        """Play with these weights from now on."""
        if weights.key != self._key:
            self.policy.load_adapter_state(weights.fetch())
        self.version, self._key = weights.version, weights.key

    def play(self, job: Job, newer: Callable[[], SentWeights | None] = lambda: None) -> list[Trajectory]:
        """Play a job's episodes, in the order of its tasks.

        Args:
            job: What to play.
            newer: Weights that have come meanwhile, see `renewal`.
        """
        episodes = [
            Episode(part.task, make_env(self.source, part.task), part.group, seed)
            for part in job.parts
            for seed in part.seeds
        ]
        engine = RenewableEngine(self.engine, lambda: self.version, newer, self._renew)
        with torch.no_grad():
            return collect(episodes, engine, self.policy.tokenizer, job.settings, self.plan.memory)

    def _renew(self, weights: SentWeights) -> None:
        try:
            self.take(weights)
        except FileNotFoundError:  # newer ones have taken their place, and are on their way
            return


def _device(kind: str, number: int) -> torch.device:
    return torch.device("cuda", number % torch.cuda.device_count()) if kind == "cuda" else torch.device("cpu")
