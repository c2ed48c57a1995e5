"""What callbacks hand to MLflow besides numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer


def log_artifact(trainer: Trainer, path: Path, place: str) -> None:
    """Copy a file, or all files of a folder, into the folder `place` of the artifacts; other loggers take none."""
    name = "log_artifacts" if path.is_dir() else "log_artifact"
    for logger in trainer.loggers:
        log = getattr(logger.experiment, name, None)  # type: ignore[attr-defined]
        if log:  # MLflow's client
            log(logger.run_id, str(path), place)  # type: ignore[attr-defined]


def mlflow_runs(trainer: Trainer) -> list[Any]:
    """The loggers that write a run of MLflow."""
    return [logger for logger in trainer.loggers if writes_mlflow(logger)]


def writes_mlflow(logger: Any) -> bool:
    """Whether a logger is Lightning's for MLflow, or of its kind."""
    from lightning.pytorch.loggers import MLFlowLogger

    return isinstance(logger, MLFlowLogger)
