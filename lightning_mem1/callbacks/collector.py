"""Collects the trajectories of an rl_step: tasks in, played episodes out.

It uses the engine's own policy and tokenizer, the source and the environments, and nothing that an update changes: so
it may run in another thread than the update of an earlier rl_step. An environment that cannot even be made ends its own
episode, like one that fails while it is played.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from lightning_mem1.data.task_data import TaskBatch, TaskDataModule
from lightning_mem1.engine.remote.engine import RemoteEngine
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.episodes import make_env
from lightning_mem1.rollout.seeds import trajectory_seed
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.rollout.workers.job import Job, Part, Weights, jobs_of
from lightning_mem1.rollout.workers.job_queue import JobQueue
from lightning_mem1.rollout.workers.pool import WorkerPool
from lightning_mem1.training.credit.filters import groups_without_signal
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.types import Trajectory, Turn

OnTurn = Callable[[Trajectory, Turn], None]
OnEnd = Callable[[int, Trajectory], None]


@dataclass(frozen=True)
class RolloutResult:
    """What was collected for an rl_step.

    Attributes:
        rl_step: Which one.
        version: The rl_step that the weights were of.
        trajectories: In the order of tasks, a group together.
        num_tokens: Sampled tokens, those of dropped episodes too.
        num_resampled: Groups that were played again.
        seconds: Wall clock.
        servers: The numbers of a `RemoteEngine` afterwards; empty for an engine in this process.
        workers: The numbers of a `WorkerPool` afterwards; empty without one.
    """

    rl_step: int
    version: int
    trajectories: list[Trajectory]
    num_tokens: int
    num_resampled: int
    seconds: float
    servers: dict[str, float]
    workers: dict[str, float] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """What to log; see `RolloutCallback`."""
        return {
            "rollout/resampled_groups": float(self.num_resampled),
            "rollout/seconds": self.seconds,
            "rollout/num_episodes": float(len(self.trajectories)),
            "rollout/tokens_per_s": self.num_tokens / max(self.seconds, 1e-9),
            "rollout/staleness": float(self.rl_step - 1 - self.version) + self.servers.get("staleness", 0.0),
            **(staleness_numbers(self.trajectories, self.rl_step) if self.workers else {}),
            **{f"rollout/server_{name}": number for name, number in self.servers.items()},
            **{f"rollout/{name}": number for name, number in self.workers.items()},
        }

    def of(self, positions: Sequence[int]) -> RolloutResult:
        """The same with the trajectories of some tasks alone, those at these places of the list of all ranks."""
        return replace(self, trajectories=[t for t in self.trajectories if t.group in positions])


def staleness_numbers(trajectories: Sequence[Trajectory], rl_step: int) -> dict[str, float]:
    """How far behind the weights were that sampled the turns of an rl_step, see `RolloutCallback`."""
    versions = [[turn.version for turn in t.turns if turn.version is not None] for t in trajectories]
    turns = [turn for t in trajectories for turn in t.turns if turn.version is not None]
    lags = [float(rl_step - 1 - turn.version) for turn in turns if turn.version is not None]
    tokens = [len(turn.action_ids) for turn in turns]
    mean = sum(lag * count for lag, count in zip(lags, tokens, strict=True)) / max(sum(tokens), 1)
    mixed = sum(len(set(each)) > 1 for each in versions) / max(len(versions), 1)
    return {"rollout/staleness": mean, "rollout/staleness_max": max(lags, default=0.0), "rollout/mixed_share": mixed}


@dataclass
class RolloutProgress:
    """How far the episodes of an rl_step have come.

    Attributes:
        rl_step: Which one; in validation the number of rl_steps done.
        num_episodes: How many are played.
        num_turns: Turns that are over.
        num_ended: Episodes that are over.
    """

    rl_step: int
    num_episodes: int
    num_turns: int = 0
    num_ended: int = 0


Watch = Callable[[RolloutProgress], None]


class Collector:
    """Plays tasks with a module's engine.

    Args:
        module: Its settings and its engine; made here, in the thread that makes this.
        data: Its source makes the environments.
        check: Called after each turn, with workers every now and then; what it raises ends the collection.
        watch: Called with how far the episodes are, after each turn and each end.
        workers: Who plays in place of the module's engine; None for nobody.
    """

    def __init__(
        self,
        module: Mem1Module,
        data: TaskDataModule,
        check: Callable[[], None] = lambda: None,
        watch: Watch | None = None,
        workers: WorkerPool | JobQueue | None = None,
    ) -> None:
        self.module, self.data, self.check, self.watch, self.workers = module, data, check, watch, workers
        self.sampling_policy, self.engine = module.sampling_policy, module.engine

    def collect(self, batch: TaskBatch) -> RolloutResult:
        """Play the training tasks of a batch, groups without a signal again and again as often as is allowed."""
        started, version, settings = time.perf_counter(), self.sampling_policy.version, self.module.rollout_settings
        trajectories = self.play(batch, self.data.group_size, settings)
        num_tokens, num_resampled = _num_tokens(trajectories), 0
        for again in range(1, settings.resample_rounds + 1):
            no_signal = groups_without_signal(trajectories)
            fresh = self.play(_part(batch, no_signal), self.data.group_size, settings, again)
            num_tokens, num_resampled = num_tokens + _num_tokens(fresh), num_resampled + len(no_signal)
            trajectories = replaced(trajectories, fresh)
        servers = self.engine.numbers() if isinstance(self.engine, RemoteEngine) and not self.workers else {}
        workers = self.workers.stats.numbers() if self.workers else {}
        ahead = isinstance(self.workers, JobQueue)
        seconds = self.workers.stats.seconds if self.workers and ahead else time.perf_counter() - started
        return RolloutResult(batch.rl_step, version, trajectories, num_tokens, num_resampled, seconds, servers, workers)

    def play(self, batch: TaskBatch, group_size: int, settings: RolloutSettings, again: int = 0) -> list[Trajectory]:
        """Play `group_size` episodes of each task; `again` counts how often these tasks have been played before."""
        parts = self._parts(batch, range(again * group_size, (again + 1) * group_size))
        return (
            self._send(parts, batch.rl_step, settings) if self.workers else self._play(parts, batch.rl_step, settings)
        )

    def begin(self, batch: TaskBatch) -> None:
        """Have workers that play ahead begin with the training tasks of a batch."""
        assert isinstance(self.workers, JobQueue)
        parts = self._parts(batch, range(self.data.group_size))
        self.workers.begin(self._jobs(parts, self.module.rollout_settings))

    def renew(self) -> None:
        """Give workers that play ahead the weights as they are now."""
        assert isinstance(self.workers, JobQueue)
        self.workers.renew(self._weights())

    def _weights(self) -> Weights:
        return Weights.of(self.sampling_policy.version, self.sampling_policy.policy.adapter_state())

    def _jobs(self, parts: Sequence[Part], settings: RolloutSettings) -> list[Job]:
        assert self.workers is not None
        return jobs_of(parts, settings, self.workers.crew.count)

    def _parts(self, batch: TaskBatch, samples: Sequence[int]) -> list[Part]:
        """Each task with the seeds of its episodes."""
        return [
            Part(task, position, tuple(self._seed(batch, position, sample) for sample in samples))
            for task, position in zip(batch.tasks, batch.positions, strict=True)
        ]

    def _seed(self, batch: TaskBatch, position: int, sample: int) -> int:
        return trajectory_seed(self.module.seed, batch.rl_step, position, sample)

    def _send(self, parts: Sequence[Part], rl_step: int, settings: RolloutSettings) -> list[Trajectory]:
        """Have the workers play, with the weights that the module's engine would have."""
        assert self.workers is not None
        progress, watch = RolloutProgress(rl_step, sum(len(part.seeds) for part in parts)), self.watch or _nothing

        def on_job(played: Sequence[Trajectory]) -> None:
            progress.num_ended += len(played)
            progress.num_turns += sum(len(trajectory.turns) for trajectory in played)
            watch(progress)

        return self.workers.play(self._jobs(parts, settings), self._weights(), on_job, self.check)

    def _play(self, parts: Sequence[Part], rl_step: int, settings: RolloutSettings) -> list[Trajectory]:
        """Play in this process."""
        episodes = [
            Episode(part.task, make_env(self.data.source, part.task), part.group, seed)
            for part in parts
            for seed in part.seeds
        ]
        policy, module, hooks = self.engine.policy, self.module, self._hooks(rl_step, len(episodes))
        training = policy.training
        policy.eval()
        try:
            with torch.no_grad():
                return collect(episodes, self.engine, policy.tokenizer, settings, module.memory, *hooks)
        finally:
            policy.train(training)

    def _hooks(self, rl_step: int, num_episodes: int) -> tuple[OnTurn, OnEnd]:
        """What `collect` calls after each turn and each episode."""
        progress, watch = RolloutProgress(rl_step, num_episodes), self.watch or _nothing

        def turn(trajectory: Trajectory, turn: Turn) -> None:
            self.check()
            progress.num_turns += 1
            watch(progress)

        def end(place: int, trajectory: Trajectory) -> None:
            progress.num_ended += 1
            watch(progress)

        return turn, end


def _nothing(progress: RolloutProgress) -> None:
    """Nobody watches."""


def _num_tokens(trajectories: Sequence[Trajectory]) -> int:
    return sum(len(turn.action_ids) for t in trajectories for turn in t.turns)


def _part(batch: TaskBatch, positions: Sequence[int]) -> TaskBatch:
    """The tasks at some positions of a batch, without trajectories."""
    pairs = [pair for pair in zip(batch.tasks, batch.positions, strict=True) if pair[1] in positions]
    return TaskBatch(batch.rl_step, [task for task, _ in pairs], [position for _, position in pairs])


def replaced(played: Sequence[Trajectory], fresh: Sequence[Trajectory]) -> list[Trajectory]:
    """The trajectories that were played, with whole groups exchanged for fresh ones, in the same order."""
    waiting: dict[int, list[Trajectory]] = {}
    for trajectory in fresh:
        waiting.setdefault(trajectory.group, []).append(trajectory)
    return [waiting[t.group].pop(0) if waiting.get(t.group) else t for t in played]


def datamodule(trainer: Any) -> TaskDataModule:
    """The trainer's source of tasks.

    Raises:
        ValueError: it has none.
    """
    if not isinstance(trainer.datamodule, TaskDataModule):
        raise ValueError(
            f"rollouts need a TaskDataModule, got {type(trainer.datamodule).__name__}; give trainer.fit one"
        )
    return trainer.datamodule
