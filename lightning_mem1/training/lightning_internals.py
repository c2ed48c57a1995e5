"""The one place that touches private attributes of Lightning (2.6)."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection


class _StepResults(_ResultCollection):
    """Lightning's collection of logged values, which begins anew with every batch.

    Lightning keeps the last value of every key for a whole epoch, and an endless stream of tasks is one epoch: a key
    that a step does not log would be sent again with its last value, and a resumed run, whose collection is empty,
    would send other points than one that was not stopped. Values that add up over an epoch stay.
    """

    @property
    def batch(self) -> Any:
        """The batch of the step, which Lightning sets before any hook of the step may log."""
        return self._batch

    @batch.setter
    def batch(self, batch: Any) -> None:
        self._batch = batch
        if batch is not None:
            for metric in self.values():
                metric._forward_cache = None


def send_own_values_only(trainer: Trainer) -> None:
    """Let each training step send to the loggers what it logs itself, and nothing of an earlier step.

    To be called in `on_fit_start`, before anything is logged.
    """
    trainer.fit_loop.epoch_loop._results = _StepResults(training=True)
