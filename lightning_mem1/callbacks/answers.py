"""How questions were answered, and how cleanly turns were written."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import Callback, Trainer

from lightning_mem1.context.tags import exact_format
from lightning_mem1.data.task_data import TaskBatch
from lightning_mem1.evaluation.metrics import AnswerScores, TrajectoryMean
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.types import Trajectory


class AnswerCallback(Callback):
    """Logs by rl_step, under ``rollout/`` in training and ``val/`` in validation, where tags name the actions (QA):

    ``em``, ``f1`` (mean over tasks of the sum over objectives, the paper's numbers), ``em_mean``, ``f1_mean`` (mean
    over objectives, 0-1), ``answered`` (0-1, share of trajectories that gave an answer), ``searches`` (per
    trajectory), ``exact_format`` (0-1, share of acts that are one internal state and one action and nothing else, or
    in a staged memory mode, one action behind words without a tag).
    A trajectory without an answer counts as wrong in all of them.
    """

    def __init__(self) -> None:
        self.scores = AnswerScores()
        self.answered, self.searches, self.exact = TrajectoryMean(), TrajectoryMean(), TrajectoryMean()

    def setup(self, trainer: Trainer, pl_module: Mem1Module, stage: str) -> None:  # type: ignore[override]
        """Put the metrics on the module's device."""
        for metric in (self.scores, self.answered, self.searches, self.exact):
            metric.to(trainer.strategy.root_device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int) -> None:  # type: ignore[override]
        """Log how the training episodes were answered."""
        if pl_module.rollout_settings.tags.actions:
            self._add(batch.trajectories, pl_module)
            pl_module.log_dict(self._flush("rollout"), on_step=True, on_epoch=False, batch_size=1)

    def on_validation_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Add the validation episodes of a batch."""
        if pl_module.rollout_settings.tags.actions:
            self._add(batch.trajectories, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Log how the validation episodes were answered."""
        if pl_module.rollout_settings.tags.actions:
            pl_module.log_dict(self._flush("val"), on_step=False, on_epoch=True, batch_size=1)

    def _add(self, trajectories: Sequence[Trajectory], module: Mem1Module) -> None:
        tags, staged = module.rollout_settings.tags, module.memory.staged
        ends = [t.acts[-1].info if t.acts else {} for t in trajectories]
        self.scores.update(
            [float(end.get("em", 0.0)) for end in ends],
            [float(end.get("f1", 0.0)) for end in ends],
            [len(t.task.objectives) for t in trajectories],
        )
        self.answered.update([float("answer" in end) for end in ends])
        self.searches.update([sum(turn.info.get("search", 0.0) for turn in t.turns) for t in trajectories])
        texts = [module.encoder.decode(turn.action_ids) for t in trajectories for turn in t.acts]
        self.exact.update([float(exact_format(text, tags, staged)) for text in texts])

    def _flush(self, prefix: str) -> dict[str, float]:
        metrics = {name: float(value) for name, value in self.scores.compute().items()}
        means = {"answered": self.answered, "searches": self.searches, "exact_format": self.exact}
        metrics |= {name: float(mean.compute()) for name, mean in means.items()}
        for metric in (self.scores, *means.values()):
            metric.reset()
        return {f"{prefix}/{name}": value for name, value in metrics.items()}
