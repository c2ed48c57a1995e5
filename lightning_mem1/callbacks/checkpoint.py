"""Checkpoints counted by rl_step: Lightning's own callback counts optimizer steps, which an rl_step may take none of.

`last.ckpt` always holds a whole number of rl_steps: an interruption inside an update leaves the one before it in place.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_mem1.callbacks.artifacts import log_artifact
from lightning_mem1.datamodule import TaskBatch
from lightning_mem1.module import Mem1Module


class RLCheckpoint(Checkpoint):
    """Writes ``checkpoints/last.ckpt``, ``checkpoints/best.ckpt`` and, at the end, the adapter as a peft folder.

    Args:
        folder: Where to write; null for the trainer's default_root_dir.
        every_n_rl_steps: How often `last.ckpt` is renewed (it holds the adapter and its optimizer, so it is small).
        monitor: Metric that `best.ckpt` goes by, higher is better.
        save_adapter: Write the adapter as safetensors (peft format) at the end, and log it to MLflow.
    """

    def __init__(
        self,
        folder: str | None = None,
        every_n_rl_steps: int = 1,
        monitor: str = "val/reward",
        save_adapter: bool = True,
    ) -> None:
        if every_n_rl_steps < 1:
            raise ValueError(f"every_n_rl_steps too small: expected at least 1, got {every_n_rl_steps}")
        self.given_folder, self.every_n_rl_steps = folder, every_n_rl_steps
        self.monitor, self.save_adapter = monitor, save_adapter
        self.best: float | None = None
        self.folder = Path(folder or ".")

    def setup(self, trainer: Trainer, pl_module: Mem1Module, stage: str) -> None:  # type: ignore[override]
        """Settle the folder."""
        self.folder = Path(self.given_folder or trainer.default_root_dir)

    @property
    def last_path(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def best_path(self) -> Path:
        """The checkpoint with the best validation."""
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def adapter_path(self) -> Path:
        """The adapter as a peft folder."""
        return self.folder / "adapter"

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Mem1Module, outputs: Any, batch: TaskBatch, batch_idx: int
    ) -> None:
        """Renew `last.ckpt`."""
        if pl_module.rl_step % self.every_n_rl_steps == 0:
            self._save(trainer, self.last_path)

    def on_validation_end(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Renew `best.ckpt` when validation is better than ever; the untrained policy is not worth a file.

        `last.ckpt` is renewed as well: a run that goes on from it must know that this validation is done.
        """
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        score = trainer.callback_metrics.get(self.monitor)
        better = score is not None and (self.best is None or float(score) > self.best)
        if score is not None and better:
            self.best = float(score)
        if better and pl_module.rl_step:
            self._save(trainer, self.best_path)
        if pl_module.rl_step and pl_module.rl_step % self.every_n_rl_steps == 0:
            self._save(trainer, self.last_path)

    def on_train_end(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Write the final state."""
        if pl_module.rl_step:
            self._save(trainer, self.last_path)
        if self.save_adapter and trainer.is_global_zero:
            pl_module.policy.save(self.adapter_path)
            log_artifact(trainer, self.adapter_path, self.adapter_path.name)

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best score so far."""
        self.best = state_dict["best"]

    def _save(self, trainer: Trainer, path: Path) -> None:
        """Write beside the old file and then replace it, so that a kill leaves one of the two whole."""
        beside = path.with_suffix(".tmp")
        trainer.save_checkpoint(beside)
        if trainer.is_global_zero:
            os.replace(beside, path)
