"""Which episodes failed, and why: their rewards count, but a few transcripts do not show all of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from lightning_mem1.context.tags import printable
from lightning_mem1.data.task_data import TaskBatch
from lightning_mem1.io.redaction import redacted
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.types import StopReason, Trajectory


class FailuresCallback(Callback):
    """Appends each episode that ended with an error to ``failures.jsonl`` of the run's folder (of further ranks to
    ``failures_<rank>.jsonl``), and says on stderr how many there were and what the first one died of.

    A line holds ``split``, ``rl_step``, ``task``, ``seed``, ``num_turns`` and ``error``. An rl_step that is played
    again after a kill is there again. ``rollout/stop_error`` is their share, see `MetricsCallback`.

    Args:
        folder: Where to write; null for the trainer's default_root_dir.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.given_folder = folder
        self.path = Path("failures.jsonl")

    def setup(self, trainer: Trainer, pl_module: Mem1Module, stage: str) -> None:  # type: ignore[override]
        """Settle the file."""
        folder = trainer.strategy.broadcast(Path(self.given_folder or trainer.default_root_dir))
        rank = trainer.global_rank
        self.path = folder / (f"failures_{rank}.jsonl" if rank else "failures.jsonl")

    def on_train_batch_start(self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int) -> None:  # type: ignore[override]
        """Write down what failed in training."""
        self._write(batch, "train")

    def on_validation_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Write down what failed in validation."""
        self._write(batch, "val")

    def _write(self, batch: TaskBatch, split: str) -> None:
        records = failures(batch.trajectories)
        if not records:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps({"split": split, "rl_step": batch.rl_step, **r}) + "\n" for r in records)
        first = records[0]
        print(
            f"{split} {batch.rl_step}: {len(records)} of {len(batch.trajectories)} episodes failed, the first one "
            f"({printable(first['task'])}) of {printable(first['error'])}; all: {self.path}",
            file=sys.stderr,
        )


def failures(trajectories: Sequence[Trajectory]) -> list[dict[str, Any]]:
    """The episodes that ended with an error, as plain values."""
    return [
        {"task": t.task.id, "seed": t.seed, "num_turns": len(t.turns), "error": redacted(t.error)}
        for t in trajectories
        if t.stop_reason == StopReason.ERROR
    ]
