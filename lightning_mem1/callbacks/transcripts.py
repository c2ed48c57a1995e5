"""Writes a few episodes turn by turn: what the policy saw, kept, did and got back, and what was dropped.

Everything a policy or an environment wrote is data: control characters are escaped, and files are plain text, JSON, or
a page in which no text acts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from lightning.pytorch import Callback, Trainer

from lightning_mem1.checks import Range, Ranges, check_numbers
from lightning_mem1.data.task_data import TaskBatch
from lightning_mem1.evaluation.report.episode import episode
from lightning_mem1.evaluation.report.page import page
from lightning_mem1.evaluation.transcript import readable, transcript
from lightning_mem1.evaluation.view import View
from lightning_mem1.io.disk_room import room_for
from lightning_mem1.tracking.artifacts import log_artifact
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.types import Trajectory


class TranscriptCallback(Callback):
    """Writes ``transcripts/<train|val>_<rl_step>``: ``.jsonl`` (one trajectory a line), the same as readable ``.txt``,
    and a page ``.html`` to look at in a browser (see `evaluation.report.page`).

    Args:
        num_trajectories: Trajectories per rl_step or validation.
        num_page_trajectories: Trajectories of the page; 0 for no page.
        every_n_rl_steps: How often training episodes are written; validation is always.
        folder: Where to write; null for the trainer's default_root_dir.
        log_artifacts: Put the readable validation transcripts and the page into MLflow as well.
    """

    ranges: ClassVar[Ranges] = {"every_n_rl_steps": Range(1)}

    def __init__(
        self,
        num_trajectories: int = 2,
        num_page_trajectories: int = 16,
        every_n_rl_steps: int = 5,
        folder: str | None = None,
        log_artifacts: bool = True,
    ) -> None:
        check_numbers("TranscriptCallback", TranscriptCallback, locals())
        self.num_trajectories, self.num_page_trajectories = num_trajectories, num_page_trajectories
        self.every_n_rl_steps, self.folder, self.log_artifacts = every_n_rl_steps, folder, log_artifacts

    def on_train_batch_start(self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int) -> None:  # type: ignore[override]
        """Write training episodes."""
        if batch.rl_step == 1 or batch.rl_step % self.every_n_rl_steps == 0:
            self._write(trainer, pl_module, batch, "train")

    def on_validation_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Write validation episodes, those of the first batch."""
        if batch_idx == 0:
            paths = self._write(trainer, pl_module, batch, "val")
            for path in paths if self.log_artifacts else []:
                log_artifact(trainer, path, "transcripts")

    def _write(self, trainer: Trainer, module: Mem1Module, batch: TaskBatch, split: str) -> list[Path]:
        """Write the files; returns those that people read."""
        if not trainer.is_global_zero:
            return []
        folder = Path(self.folder or trainer.default_root_dir) / "transcripts"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{split}_{batch.rl_step:05d}"
        written = []
        if self.num_trajectories > 0:
            records = [transcript(t, module) for t in batch.trajectories[: self.num_trajectories]]
            lines = (json.dumps(record, ensure_ascii=True) for record in records)
            with room_for(path.with_suffix(".jsonl")):
                path.with_suffix(".jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
                path.with_suffix(".txt").write_text("\n\n".join(map(readable, records)) + "\n", encoding="utf-8")
            written.append(path.with_suffix(".txt"))
        if self.num_page_trajectories > 0:
            run = "/".join(Path(trainer.default_root_dir).parts[-2:])
            title = f"{run}: {split}, rl_step {batch.rl_step}"
            text = page_of(batch.trajectories, module, title, self.num_page_trajectories, split == "train")
            with room_for(path.with_suffix(".html")):
                path.with_suffix(".html").write_text(text, encoding="utf-8")
            written.append(path.with_suffix(".html"))
        return written


def page_of(trajectories: Sequence[Trajectory], module: Mem1Module, title: str, limit: int, learnt: bool) -> str:
    """The page of the first trajectories; of those that are learnt from, with the advantages of their tokens."""
    view = View(module.encoder.decode, module.rollout_settings.tags, module.contexts)
    advantages = known_advantages(trajectories, module) if learnt else None
    episodes = [episode(t, view, advantages[i] if advantages else None) for i, t in enumerate(trajectories[:limit])]
    return page(episodes, title, len(trajectories))


def known_advantages(trajectories: Sequence[Trajectory], module: Mem1Module) -> list[list[float]] | None:
    """The advantage of each action token by trajectory, where rewards alone give it.

    None where it takes a forward pass (a critic, a penalty in the reward) or the sums of all ranks (whitening).
    """
    assigner = module.credit_assigner
    if not assigner.algorithm.relative or assigner.kl_coef:
        return None
    return [credit.advantages.tolist() for credit in assigner.assign(trajectories, {})]
