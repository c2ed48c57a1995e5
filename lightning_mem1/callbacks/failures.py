"""Which episodes failed, and why: their rewards count, but a few transcripts do not show all of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, Trainer

from lightning_mem1.checks import Range, Ranges, check_numbers
from lightning_mem1.context.tags import printable
from lightning_mem1.data.task_data import TaskBatch
from lightning_mem1.io.disk_room import room_for
from lightning_mem1.io.redaction import redacted
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.types import StopReason, Trajectory


class FailuresCallback(Callback):
    """Appends each episode that ended with an error to ``failures.jsonl`` of the run's folder (of further ranks to
    ``failures_<rank>.jsonl``), and says on stderr how many there were and what the first one died of.

    A line holds ``split``, ``rl_step``, ``task``, ``seed``, ``num_turns``, ``error`` and ``at`` (file and line). An
    rl_step that is played again after a kill is in it again. ``rollout/stop_error`` is their share.

    A bad rollout is data. Where every episode of `max_failed_steps` rl_steps in a row failed, on all ranks, there is
    nothing to learn from: the run ends with the first error.

    Args:
        folder: Where to write; null for the trainer's default_root_dir.
        max_failed_steps: rl_steps in a row in which every training episode may fail; null for no limit.
    """

    ranges: ClassVar[Ranges] = {"max_failed_steps": Range(1)}

    def __init__(self, folder: str | None = None, max_failed_steps: int | None = 2) -> None:
        check_numbers("FailuresCallback", FailuresCallback, locals())
        self.given_folder, self.max_failed_steps = folder, max_failed_steps
        self.path = Path("failures.jsonl")
        self._failed_steps, self._first = 0, ""  # in a row, and the first error of the first of them

    def setup(self, trainer: Trainer, pl_module: Mem1Module, stage: str) -> None:  # type: ignore[override]
        """Settle the file."""
        folder = trainer.strategy.broadcast(Path(self.given_folder or trainer.default_root_dir))
        rank = trainer.global_rank
        self.path = folder / (f"failures_{rank}.jsonl" if rank else "failures.jsonl")

    def on_train_batch_start(self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int) -> None:  # type: ignore[override]
        """Write down what failed in training; end a run in which nothing else happens.

        Raises:
            RuntimeError: every episode failed, `max_failed_steps` times in a row.
        """
        self._write(batch, "train")
        errors = [f"{t.error} (at {t.error_at or 'the engine'})" for t in batch.trajectories if _failed(t)]
        played = len(batch.trajectories) - len(errors)
        if trainer.strategy.reduce(torch.tensor(float(played)), reduce_op="sum") > 0:
            self._failed_steps, self._first = 0, ""
            return
        self._failed_steps += 1
        self._first = self._first or redacted(next(iter(errors), "no episode on this rank"))
        if self._failed_steps == self.max_failed_steps:
            raise RuntimeError(
                f"every episode of {self._failed_steps} rl_steps failed, so there is nothing to learn from; the first "
                f"error: {printable(self._first)}; fix the environment, all errors are in {self.path}"
            )

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
        with room_for(self.path), open(self.path, "a", encoding="utf-8") as file:
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
        {"task": t.task.id, "seed": t.seed, "num_turns": len(t.turns), "error": redacted(t.error), "at": t.error_at}
        for t in trajectories
        if _failed(t)
    ]


def _failed(trajectory: Trajectory) -> bool:
    return trajectory.stop_reason == StopReason.ERROR
