"""Checkpoints counted by rl_step: Lightning's own callback counts optimizer steps, which an rl_step may take none of.

`last.ckpt` always holds a whole number of rl_steps: an interruption inside an update leaves the one before it in place.
What MLflow shows is what a checkpoint holds (see `run_logger`).
"""

from __future__ import annotations

import difflib
import io
import math
import sys
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_mem1.callbacks.card import described, measured, save_with_card
from lightning_mem1.callbacks.sigterm import Sigterm
from lightning_mem1.checks import Range, Ranges, check_numbers
from lightning_mem1.data.task_data import TaskBatch
from lightning_mem1.io.atomic_files import keep, write_atomic
from lightning_mem1.policy.sharding import trains_parts, whole_weights
from lightning_mem1.tracking.artifacts import log_artifact
from lightning_mem1.tracking.mlflow_logger import ResumableMLflowLogger
from lightning_mem1.training.checkpoint_shards import join, tidy
from lightning_mem1.training.lightning_internals import count_last_batch_as_done, logged_in_this_step
from lightning_mem1.training.module import Mem1Module

CONFIG = "config.yaml"
RUN = "mlflow"  # this package's second entry of a checkpoint: its run, and the numbers that wait for it


class RLCheckpoint(Checkpoint):
    """Writes ``checkpoints/last.ckpt``, ``best.ckpt``, the last few ``rl_step_<n>.ckpt`` and, at the end, the adapter.

    ``best.ckpt`` is there after the first validation, which is that of the untrained policy.

    Args:
        folder: Where to write; null for the trainer's default_root_dir.
        every_n_rl_steps: How often `last.ckpt` is renewed (it holds the adapter and its optimizer, so it is small).
        monitor: Metric that `best.ckpt` goes by, higher is better.
        save_adapter: Write the adapter as safetensors (peft format) at the end, and log it to MLflow.
        num_kept: How many of the last checkpoints keep a name of their own, `last.ckpt` among them.
    """

    ranges: ClassVar[Ranges] = {"every_n_rl_steps": Range(1)}

    def __init__(
        self,
        folder: str | None = None,
        every_n_rl_steps: int = 1,
        monitor: str = "val/reward",
        save_adapter: bool = True,
        num_kept: int = 2,
    ) -> None:
        check_numbers("RLCheckpoint", RLCheckpoint, locals())
        self.given_folder, self.every_n_rl_steps = folder, every_n_rl_steps
        self.monitor, self.save_adapter, self.num_kept = monitor, save_adapter, num_kept
        self.best: float | None = None
        self.report: dict[str, Any] = {}  # for the model card: what it was trained on, and the last validation
        self._warned = False
        self.folder = Path(folder or ".")
        self.sigterm = Sigterm()
        self._kept: dict[Path, bytes] = {}  # files of the folder that no callback writes again
        self._has_saved = False

    def setup(self, trainer: Trainer, pl_module: Mem1Module, stage: str) -> None:  # type: ignore[override]
        """Settle the folder, how files are written there, and what a SIGTERM does."""
        self.folder = trainer.strategy.broadcast(Path(self.given_folder or trainer.default_root_dir))
        self.report = {"data": described(trainer.datamodule)}  # type: ignore[attr-defined]
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFileIO()
        for logger in _runs(trainer):
            logger.holds = stage == "fit"
        if stage == "fit":
            self.sigterm.listen(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Send what waited in the checkpoint that is resumed; note what the folder holds."""
        self._send(trainer)
        config = self.folder / CONFIG
        self._kept = {config: config.read_bytes()} if trainer.is_global_zero and config.is_file() else {}

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
        """Renew `last.ckpt`, also when the scheduler wants the machine back."""
        if numbers := logged_in_this_step(trainer):
            for logger in _runs(trainer):
                logger.hold(numbers, pl_module.rl_step)
        wanted_back = self.sigterm.leave(trainer)
        if wanted_back or pl_module.rl_step % self.every_n_rl_steps == 0:
            self._save_last(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Renew `best.ckpt` when validation is better than ever, that of the untrained policy included.

        `last.ckpt` is renewed as well: a run that resumes from it must know that this validation is done.
        """
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        count_last_batch_as_done(trainer)
        self.report["validation"] = {"rl_step": pl_module.rl_step, **measured(trainer.callback_metrics)}
        self._save_best(trainer)
        wanted_back = self.sigterm.leave(trainer)
        if not pl_module.rl_step:  # nothing is trained that `last.ckpt` could keep
            self._send(trainer)
        elif wanted_back or pl_module.rl_step % self.every_n_rl_steps == 0:
            self._save_last(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Write the final state."""
        count_last_batch_as_done(trainer)
        if pl_module.rl_step:
            self._save_last(trainer, pl_module)
        if not self.save_adapter:
            return
        policy = pl_module.policy
        weights = whole_weights(policy) if trains_parts(policy) else None  # every rank has a part of them
        if trainer.is_global_zero:
            save_with_card(pl_module, self.adapter_path, self.report, weights)
            log_artifact(trainer, self.adapter_path, self.adapter_path.name)

    def state_dict(self) -> dict[str, Any]:
        """The score of `best.ckpt`, and what a model card says of the training."""
        return {"best": self.best, "report": self.report}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the score of `best.ckpt`."""
        self.best = state_dict["best"]
        self.report |= {key: value for key, value in state_dict.get("report", {}).items() if key != "data"}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Mem1Module, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Keep the run, and the numbers that it does not have yet."""
        for logger in _runs(trainer)[:1]:
            checkpoint[RUN] = logger.state()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Mem1Module, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Take up the numbers that the run does not have yet."""
        for logger in _runs(trainer)[:1]:
            if RUN in checkpoint:
                logger.restore(checkpoint[RUN])

    def _save_best(self, trainer: Trainer) -> None:
        """Write `best.ckpt` when the last validation is better than the one it holds, or when there is none."""
        score = trainer.callback_metrics.get(self.monitor)
        if score is None:
            self._say_what_can_be_monitored(trainer)
            return
        better = self.best is None or math.isnan(self.best) or float(score) > self.best
        if better or trainer.strategy.broadcast(not self.best_path.is_file()):
            self.best = float(score)
            self._look_after_folder(trainer)
            trainer.save_checkpoint(self.best_path)

    def _say_what_can_be_monitored(self, trainer: Trainer) -> None:
        """Say once that a misspelled metric leaves no `best.ckpt`; nothing where no callback logs any."""
        logged = sorted(key for key in trainer.callback_metrics if key.startswith("val/"))
        if logged and trainer.is_global_zero and not self._warned:
            nearest = difflib.get_close_matches(self.monitor, logged, n=1, cutoff=0.0)[0]
            print(
                f"no best.ckpt: expected RLCheckpoint.monitor to be a metric that is logged, got '{self.monitor}'; did "
                f"you mean '{nearest}'?",
                file=sys.stderr,
            )
        self._warned = True

    def _look_after_folder(self, trainer: Trainer) -> None:
        """Say that the run's folder was deleted under it, and write what is still known of it."""
        if not trainer.is_global_zero:
            return
        gone = [path for path in self._kept if not path.exists()]
        if not gone and (self.last_path.parent.exists() or not self._has_saved):
            return
        print(
            f"the run's folder '{self.folder}' was deleted while the run is under way: it is made again from here; its "
            "transcripts and earlier checkpoints are lost",
            file=sys.stderr,
        )
        for path in gone:
            write_atomic(path, self._kept[path])
        self._has_saved = False

    def _save_last(self, trainer: Trainer, module: Mem1Module) -> None:
        self._look_after_folder(trainer)
        trainer.save_checkpoint(self.last_path)
        self._has_saved = True
        if trainer.is_global_zero:
            kept = self.last_path.with_name(f"rl_step_{module.rl_step:06d}.ckpt")
            keep(self.last_path, kept, "rl_step_*.ckpt", self.num_kept)
            tidy(self.last_path.parent)
        self._send(trainer)

    def _send(self, trainer: Trainer) -> None:
        for logger in _runs(trainer):
            logger.send()


class WholeFileIO(TorchCheckpointIO):
    """Writes whole checkpoint files, and reads those whose weights are in a folder of shards.

    Lightning's own writer goes through the folder for temporary files, which may be another and smaller disk.
    """

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint, with whole weights."""
        return join(super().load_checkpoint(path, map_location, weights_only), path)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: it does not fit on the disk; the old file is as it was.
        """
        buffer = io.BytesIO()  # torch's writer does not survive an exception of the file that it writes to
        torch.save(checkpoint, buffer)
        write_atomic(Path(path), buffer.getbuffer())


def _runs(trainer: Trainer) -> list[ResumableMLflowLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, ResumableMLflowLogger)]
