"""Writes down, with the run, what it was made with; what is sent: `tracking.datasets`."""

from __future__ import annotations

from lightning.pytorch import Callback, Trainer

from lightning_mem1.data.task_data import TaskDataModule
from lightning_mem1.tracking.artifacts import mlflow_runs
from lightning_mem1.tracking.datasets import describe
from lightning_mem1.training.module import Mem1Module


class ProvenanceCallback(Callback):
    """At the start of a run gives its MLflow run tags and data sets; parameters are the settings, logged elsewhere.

    Tags: ``mlflow.source.git.commit`` and ``git.dirty`` of the package's checkout (none where it is installed),
    ``environment.<name>`` for versions and machine. Data sets: ``<source>/train`` and ``<source>/val`` with a hash of
    up to 100 of their tasks, and each file that the data module names, with a hash of its content.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Write it down; a resumed run gets its tags anew."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.is_global_zero and isinstance(data, TaskDataModule):
            for logger in mlflow_runs(trainer):
                describe(logger, data, {"train": "training", "val": "validation"})
