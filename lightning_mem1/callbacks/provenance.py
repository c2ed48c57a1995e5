"""Writes down, with the run, what it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from lightning_mem1.data.task_data import TaskDataModule, spread_indices
from lightning_mem1.tracking import run_metadata
from lightning_mem1.tracking.artifacts import hand_over
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.types import Split

COMMIT, DIRTY = "mlflow.source.git.commit", "git.dirty"
NUM_HASHED = 100  # tasks of a split, spread evenly


class ProvenanceCallback(Callback):
    """At the start of a run gives its MLflow run tags and data sets; parameters are the settings, logged elsewhere.

    Tags: ``mlflow.source.git.commit`` and ``git.dirty`` of the package's checkout (none where it is installed),
    ``environment.<name>`` for versions and machine. Data sets: ``<source>/train`` and ``<source>/val`` with a hash of
    up to 100 of their tasks, and each file that the data module names, with a hash of its content.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Write it down; a run that is gone on with gets its tags anew."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.is_global_zero and isinstance(data, TaskDataModule):
            splits: Mapping[Split, str] = {"train": "training", "val": "validation"}
            hand_over(trainer, "what the run is made with", lambda logger: describe(logger, data, splits))


def describe(logger: Any, data: TaskDataModule, splits: Mapping[Split, str]) -> None:
    """Give the MLflow run of a logger its tags and data sets.

    Args:
        logger: Lightning's logger for MLflow.
        data: Where the tasks come from.
        splits: Those that are played, and what for.
    """
    from mlflow.entities import RunTag

    commit = run_metadata.git()
    tags = {COMMIT: commit["commit"], DIRTY: commit["dirty"]} if commit else {}
    tags |= {f"environment.{key}": value for key, value in run_metadata.environment().items()}
    client = logger.experiment
    client.log_batch(logger.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    client.log_inputs(logger.run_id, data_sets(data, splits))


def data_sets(data: TaskDataModule, splits: Mapping[Split, str]) -> list[Any]:
    """The data sets of a run, as MLflow's inputs; a split without tasks is none."""
    name, found = type(data.source).__name__, []
    for split, context in splits.items():
        if size := data.source.size(split):
            digest = run_metadata.task_digest(data.source, split, spread_indices(NUM_HASHED, size))
            found.append(_input(f"{name}/{split}", digest, f"{size} tasks", context))
    files = run_metadata.file_digests(data.files())
    return found + [_input(Path(path).name, digest, path, "file") for path, digest in files.items()]


def _input(name: str, digest: str, source: str, context: str) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data_set = Dataset(name=name, digest=digest, source_type="local", source=source)
    return DatasetInput(data_set, [InputTag("mlflow.data.context", context)])
