"""What callbacks hand to MLflow besides numbers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lightning_mem1.redaction import redacted


def log_artifact(trainer: Trainer, path: Path, place: str) -> None:
    """Copy a file, or all files of a folder, into the folder `place` of the artifacts; other loggers take none.

    A store that cannot take it does not end the training.
    """
    name = "log_artifacts" if path.is_dir() else "log_artifact"
    for logger in mlflow_runs(trainer):
        try:
            getattr(logger.experiment, name)(logger.run_id, str(path), place)
        except Exception as error:  # every store raises its own kinds; the file itself is in the run's folder
            reason = redacted(" ".join(str(error).split()))[:120]
            print(f"MLflow did not take {path}: {reason}", file=sys.stderr)


def mlflow_runs(trainer: Trainer) -> list[Any]:
    """The loggers that write a run of MLflow."""
    return [logger for logger in trainer.loggers if writes_mlflow(logger)]


def writes_mlflow(logger: Any) -> bool:
    """Whether a logger is Lightning's for MLflow, or of its kind."""
    from lightning.pytorch.loggers import MLFlowLogger

    return isinstance(logger, MLFlowLogger)
