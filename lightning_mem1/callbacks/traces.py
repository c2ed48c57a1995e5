"""The episodes of each rl_step as traces of MLflow; what is sent: `tracking.traces`."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer

from lightning_mem1.checks import check_numbers
from lightning_mem1.data.task_data import TaskBatch, spread_indices
from lightning_mem1.tracking.artifacts import hand_over, mlflow_runs
from lightning_mem1.tracking.traces import send, trace_record
from lightning_mem1.training.lightning_internals import tracking_uri
from lightning_mem1.training.module import Mem1Module


class TraceCallback(Callback):
    """Writes trajectories of each rl_step, and of each validation, as traces of the logger's MLflow run.

    A trace is named by its task and tagged ``split``, ``rl_step``, ``reward``, ``success``, ``stop_reason`` and
    ``memory``. Its root span holds the prompt and how it ended; the span of a turn holds what the policy saw (its text
    and how many tokens it, what was dropped, and what was written have), its internal state, its action, the
    information and the reward.

    Args:
        traces_per_step: Trajectories of an rl_step, and of a validation, spread evenly over them: eight are one of each
            task of the experiments here; null for every one, 0 for none. A trace takes 12 ms of CPU, another 35 ms of
            waiting for a busy disk, and 40 KiB (six turns, a local sqlite store, one core of an AMD EPYC); MLflow's
            store takes them one by one and by one thread only. Of several processes the first one's are written.
    """

    def __init__(self, traces_per_step: int | None = 8) -> None:
        check_numbers("TraceCallback", TraceCallback, locals())
        self.traces_per_step = traces_per_step
        self._failed = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int) -> None:  # type: ignore[override]
        """Write training episodes."""
        self._write(trainer, pl_module, batch, "train")

    def on_validation_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Write validation episodes, those of the first batch."""
        if batch_idx == 0:
            self._write(trainer, pl_module, batch, "val")

    def _write(self, trainer: Trainer, module: Mem1Module, batch: TaskBatch, split: str) -> None:
        most = len(batch.trajectories) if self.traces_per_step is None else self.traces_per_step
        if self._failed or not trainer.is_global_zero or not most:
            return
        if not mlflow_runs(trainer):
            return
        chosen = spread_indices(most, len(batch.trajectories))
        records = [trace_record(batch.trajectories[number], module) for number in chosen]
        tags = {"split": split, "rl_step": str(batch.rl_step)}

        def write(logger: Any) -> None:
            send(records, tags, str(tracking_uri(logger)), logger.experiment_id, logger.run_id)

        self._failed = not hand_over(trainer, "a trace, and is given no more of them", write)
