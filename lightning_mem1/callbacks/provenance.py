"""Writes down, with the run, what it was made with; what is sent: `tracking.datasets`."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.pytorch import Callback, Trainer

from lightning_mem1.data.task_data import TaskDataModule
from lightning_mem1.tracking.artifacts import hand_over
from lightning_mem1.tracking.datasets import describe
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.types import Split


class ProvenanceCallback(Callback):
    """At the start of a run gives its MLflow run tags and data sets; parameters are the settings, logged elsewhere.

    Tags: ``mlflow.source.git.commit`` and ``git.dirty`` of the package's checkout (none where it is installed),
    ``environment.<name>`` for versions and machine. Data sets: ``<source>/train`` and ``<source>/val`` with a hash of
    up to 100 of their tasks, and each file that the data module names, with a hash of its content.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Log it; a resumed run gets its tags again."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.is_global_zero and isinstance(data, TaskDataModule):
            splits: Mapping[Split, str] = {"train": "training", "val": "validation"}
            hand_over(
                trainer, "what the run is made with", lambda logger: describe(logger, data, splits), can_wait=True
            )
