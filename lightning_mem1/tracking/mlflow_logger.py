"""An MLflow run whose curves keep to the checkpoints: a run that is killed and goes on has no gap and no doubled step.

Numbers wait in an outbox until a checkpoint that holds them is on disk, and are sent then. Whoever goes on from that
checkpoint sends its outbox again, with the times of the first attempt, and MLflow takes no point twice.
"""

from __future__ import annotations

import re
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lightning_mem1.io.redaction import reason
from lightning_mem1.training.lightning_internals import mlflow_client, run_id_so_far, take_run

MAX_METRICS_PER_CALL = 1000  # of MLflow
MAX_PARAM_LENGTH = 250  # of Lightning's logger

Point = tuple[str, float, int, int]  # key, value, milliseconds since 1970, step


class ResumableMLflowLogger(MLFlowLogger):
    """MLflow's run of a training, which may be gone on with.

    Metrics go to MLflow at once until `holds` is set. A setting that another attempt has given another value becomes
    the tag ``changed/<setting>``, because MLflow's parameters never change.

    Args:
        experiment_name: MLflow's experiment.
        run_name: Name of a new run.
        tracking_uri: MLflow's store.
        run_id: The run to go on with; one that the store does not have, or no longer, is replaced by a new one.

    Attributes:
        holds: Whether numbers wait for `send`.
        outbox: What waits, oldest first.
    """

    def __init__(self, experiment_name: str, run_name: str, tracking_uri: str, run_id: str | None = None) -> None:
        super().__init__(experiment_name=experiment_name, run_name=run_name, tracking_uri=tracking_uri)
        self.holds = False
        self.outbox: list[Point] = []
        self._newest: dict[str, int] = {}  # step of each key's last point
        self._failed = False
        self._params: dict[str, str] = {}  # of the attempts before
        if run_id and self._is_active(run_id):
            take_run(self, run_id)
            self._go_on(run_id)
        elif run_id:
            print(f"MLflow has no run {run_id} (any more): the curves go on in a new one", file=sys.stderr)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send numbers, or let them wait.

        Args:
            metrics: Numbers by key.
            step: The rl_step.
        """
        if self.holds:
            self.hold(metrics, step or 0)
        else:
            super().log_metrics(metrics, step)

    @rank_zero_only
    def hold(self, metrics: Mapping[str, float], step: int) -> None:
        """Let numbers wait for `send`; a key that has a point of this step or a later one keeps it."""
        now_ms = time.time_ns() // 1_000_000
        for key, value in metrics.items():
            name = re.sub(r"[^a-zA-Z0-9_/. -]+", "", key)
            if step > self._newest.get(name, -1):
                self._newest[name] = step
                self.outbox.append((name, float(value), now_ms, step))

    @rank_zero_only
    def send(self) -> None:
        """Send what waits; what MLflow cannot take now (a full disk, a server that is gone) waits for the next time."""
        from mlflow.entities import Metric

        while self.outbox:
            part = [Metric(*point) for point in self.outbox[:MAX_METRICS_PER_CALL]]
            try:
                self.experiment.log_batch(run_id=self.run_id, metrics=part)
            except Exception as error:  # every store raises its own kinds
                self.complain("numbers", error)
                return
            del self.outbox[:MAX_METRICS_PER_CALL]
            self._failed = False

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:  # type: ignore[override]
        """Log settings; those that an attempt before had otherwise as tags."""
        given = vars(params) if isinstance(params, Namespace) else params
        told = {key: str(value)[:MAX_PARAM_LENGTH] for key, value in given.items()}
        super().log_hyperparams({key: given[key] for key in told if key not in self._params})
        for key, value in told.items():
            before = self._params.get(key, value)
            if value != before:
                self.experiment.set_tag(self.run_id, f"changed/{key}", f"{value} (was {before})")

    def finalize(self, status: str = "success") -> None:
        """End the run; a store that cannot take that does not end the training in an error."""
        try:
            super().finalize(status)
        except Exception as error:  # every store raises its own kinds
            self.complain("the end of the run", error)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the run and what waits."""
        return {"run_id": self.run_id, "outbox": [list(point) for point in self.outbox]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what waited, if it is this run's."""
        if state["run_id"] == run_id_so_far(self):
            self.outbox = [(str(key), float(value), int(ms), int(step)) for key, value, ms, step in state["outbox"]]
            self._newest = {key: step for key, _, _, step in self.outbox}

    def complain(self, what: str, error: Exception) -> None:
        """Say that the store did not take something; not again before it has taken numbers."""
        if not self._failed:
            told = "the training goes on, numbers wait in the checkpoints"
            print(f"MLflow did not take {what} ({reason(error)}): {told}", file=sys.stderr)
        self._failed = True

    def _is_active(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            run = mlflow_client(self).get_run(run_id)
        except MlflowException:
            return False
        self._params = dict(run.data.params)
        return run.info.lifecycle_stage == "active"

    @rank_zero_only
    def _go_on(self, run_id: str) -> None:
        mlflow_client(self).update_run(run_id, status="RUNNING")
