"""What callbacks hand to MLflow besides numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lightning_mem1.io.redaction import reason
from lightning_mem1.tracking.mlflow_logger import ResumableMLflowLogger


def log_artifact(trainer: Trainer, path: Path, place: str) -> None:
    """Copy a file, or all files of a folder, into the folder `place` of the artifacts; other loggers take none."""
    name = "log_artifacts" if path.is_dir() else "log_artifact"
    hand_over(trainer, str(path), lambda run: getattr(run.experiment, name)(run.run_id, str(path), place))


def hand_over(trainer: Trainer, what: str, send: Callable[[Any], object], can_wait: bool = False) -> bool:
    """Call `send` with each logger that writes a run of MLflow.

    A store that cannot take it does not end the training: what it is about is in the run's folder too.

    Args:
        trainer: Has the loggers.
        what: Names it, for the message.
        send: Writes it.
        can_wait: Whether `send` may be called later, when a store that is being made is there.

    Returns:
        Whether all of them took it, or will.
    """
    taken = True
    for logger in mlflow_runs(trainer):
        try:
            if isinstance(logger, ResumableMLflowLogger):
                if can_wait and logger.put_off(what, send):
                    continue
                logger.check_open()
            send(logger)
        except Exception as error:  # every store raises its own kinds
            taken = False
            _complain(logger, what, error)
    return taken


def _complain(logger: Any, what: str, error: Exception) -> None:
    if isinstance(logger, ResumableMLflowLogger):
        logger.complain(what, error)
    else:
        print(f"MLflow did not take {what} ({reason(error)})", file=sys.stderr)


def mlflow_runs(trainer: Trainer) -> list[Any]:
    """The loggers that write a run of MLflow."""
    return [logger for logger in trainer.loggers if writes_mlflow(logger)]


def writes_mlflow(logger: Any) -> bool:
    """Whether a logger is Lightning's for MLflow, or of its kind."""
    from lightning.pytorch.loggers import MLFlowLogger

    return isinstance(logger, MLFlowLogger)
