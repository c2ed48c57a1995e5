"""Pictures of a run: how trajectories are laid out, what their tokens were credited with, the curve at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from matplotlib.figure import Figure

from lightning_mem1.callbacks.transcripts import known_advantages
from lightning_mem1.data.task_data import TaskBatch
from lightning_mem1.evaluation.report import layout_plot, plots
from lightning_mem1.evaluation.report.notebook import plot_advantages, plot_masks
from lightning_mem1.tracking.artifacts import log_artifact
from lightning_mem1.training.credit.filters import num_action_tokens
from lightning_mem1.training.module import Mem1Module

KEPT = ("rollout/reward", "rollout/success", "val/reward", "val/success", "val/baseline_")


class PicturesCallback(Callback):
    """Writes ``pictures/<name>.png`` and puts them into MLflow.

    ``layouts`` (what sees what, in every layout) and ``advantages`` (of each action token, where rewards alone give
    them) show one trajectory of the first rl_step; ``curve`` (reward and success by rl_step) is drawn at the end.

    Args:
        folder: Where to write; null for the trainer's default_root_dir.
        log_artifacts: Put the pictures into MLflow as well.
    """

    def __init__(self, folder: str | None = None, log_artifacts: bool = True) -> None:
        self.folder, self.log_artifacts = folder, log_artifacts
        self.points: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int) -> None:  # type: ignore[override]
        """Draw a trajectory of the first rl_step."""
        if batch.rl_step == 1 and trainer.is_global_zero:
            self._save(trainer, of_batch(batch, pl_module))

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Mem1Module, outputs: Any, batch: TaskBatch, batch_idx: int
    ) -> None:
        """Remember an rl_step."""
        self._remember(trainer, pl_module.rl_step, "rollout/")

    def on_validation_end(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Remember a validation."""
        if not trainer.sanity_checking:
            self._remember(trainer, pl_module.rl_step, "val/")

    def on_train_end(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Draw the curve."""
        if trainer.is_global_zero and self.points:
            self._save(trainer, {"curve": plots.curve(self.points)})

    def state_dict(self) -> dict[str, Any]:
        """The points so far, so that a resumed run draws the whole curve."""
        return {"points": self.points}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the points so far."""
        self.points = [dict(point) for point in state_dict["points"]]

    def _remember(self, trainer: Trainer, rl_step: int, prefix: str) -> None:
        found = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith(KEPT)}
        found = {key: value for key, value in found.items() if key.startswith(prefix)}
        if found:
            self.points.append({"rl_step": float(rl_step), **found})

    def _save(self, trainer: Trainer, figures: Mapping[str, Figure]) -> None:
        folder = Path(self.folder or trainer.default_root_dir) / "pictures"
        for path in plots.save(figures, folder):
            if self.log_artifacts:
                log_artifact(trainer, path, "pictures")


def of_batch(batch: TaskBatch, module: Mem1Module) -> dict[str, Figure]:
    """Pictures by name of the trajectory with the most turns, of one that teaches something where there is one.

    None where nothing was written.
    """
    trajectories, known, figures = batch.trajectories, known_advantages(batch.trajectories, module), {}
    taught = [known is not None and any(known[number]) for number in range(len(trajectories))]
    number = max(range(len(trajectories)), key=lambda i: (taught[i], len(trajectories[i].turns)), default=None)
    if number is None or not num_action_tokens(trajectories[number]):
        return {}
    chosen = trajectories[number]
    if layout_plot.turns_drawn(chosen, module.contexts):
        figures["layouts"] = plot_masks(chosen, module)
    if known is not None:
        title = f"{chosen.task.id}, reward {chosen.reward:.2f}"
        figures["advantages"] = plot_advantages(chosen, known[number], module, title)
    return figures
