"""How episodes ended: rewards, success, validity and stop reasons, over all trajectories, failed ones included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import pstdev

from lightning.pytorch import Callback, Trainer

from lightning_mem1.data.task_data import TaskBatch, TaskDataModule
from lightning_mem1.evaluation.metrics import TrajectoryMean
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.types import StopReason, Trajectory


def reward_numbers(trajectories: Sequence[Trajectory]) -> dict[str, list[float]]:
    """Numbers to be averaged, by metric name; one per trajectory, `group_std` one per group, `invalid` one per act."""
    rewards = [float(t.reward) for t in trajectories]
    groups: dict[int, list[float]] = {}
    for trajectory, reward in zip(trajectories, rewards, strict=True):
        if math.isfinite(reward):  # a group's deviation is that of the rewards that are numbers
            groups.setdefault(trajectory.group, []).append(reward)
    return {
        "reward": rewards,
        "reward_squared": [reward**2 for reward in rewards],
        "success": [t.success for t in trajectories],
        "group_std": [pstdev(finite) for finite in groups.values()],
        "invalid_action_rate": [float(not turn.valid) for t in trajectories for turn in t.acts],
        "turns": [float(len(t.acts)) for t in trajectories],
        "seconds_per_episode": [t.seconds for t in trajectories],
        **{f"stop_{reason}": [float(t.stop_reason == reason) for t in trajectories] for reason in StopReason},
    }


class RewardCallback(Callback):
    """Logs by rl_step, under ``rollout/`` in training and ``val/`` in validation:

    ``reward`` and ``reward_std`` (reward units, over trajectories), ``success`` (0-1), ``group_std`` (mean deviation
    within a group), ``invalid_action_rate`` (0-1, of turns), ``turns`` (per trajectory), ``seconds_per_episode``,
    ``stop_done``, ``stop_max_turns``, ``stop_context``, ``stop_error`` (0-1, share of trajectories), and in validation
    ``baseline_<name>`` (mean reward of the source's own baselines on the same tasks).
    """

    def __init__(self) -> None:
        # all of them from the start: a rank that played nothing takes part in every reduction all the same
        self.means = {name: TrajectoryMean() for name in reward_numbers([])}

    def setup(self, trainer: Trainer, pl_module: Mem1Module, stage: str) -> None:  # type: ignore[override]
        """Put the metrics on the module's device."""
        for mean in self.means.values():
            mean.to(trainer.strategy.root_device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int) -> None:  # type: ignore[override]
        """Log the rewards of the training episodes."""
        self._add(batch.trajectories)
        pl_module.log_dict(self._flush("rollout"), on_step=True, on_epoch=False, batch_size=1)

    def on_validation_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Add the validation episodes of a batch."""
        self._add(batch.trajectories)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Log the validation rewards beside the baselines."""
        metrics = self._flush("val")
        metrics.pop("val/group_std", None)  # greedy episodes are alone in their groups
        if isinstance(trainer.datamodule, TaskDataModule):  # type: ignore[attr-defined]
            scores = trainer.datamodule.baselines()  # type: ignore[attr-defined]
            metrics |= {f"val/baseline_{name}": score for name, score in scores.items()}
        pl_module.log_dict({**metrics, "step": float(pl_module.rl_step)}, on_step=False, on_epoch=True, batch_size=1)

    def _add(self, trajectories: Sequence[Trajectory]) -> None:
        for name, numbers in reward_numbers(trajectories).items():
            self.means[name].update(numbers)

    def _flush(self, prefix: str) -> dict[str, float]:
        means = {name: float(mean.compute()) for name, mean in self.means.items()}
        for mean in self.means.values():
            mean.reset()
        variance = means.pop("reward_squared") - means["reward"] ** 2
        means["reward_std"] = max(variance, 0.0) ** 0.5
        return {f"{prefix}/{name}": value for name, value in means.items()}
