"""An MLflow run whose curves keep to the checkpoints: a run that is killed and resumed has no gap and no doubled step.

Numbers wait in an outbox until a checkpoint that holds them is on disk, and are sent then. Whoever resumes from that
checkpoint sends its outbox again, with the times of the first attempt, and MLflow takes no point twice. A store that
cannot be used, at the start or later, does not end a training: what it should have waits until it can.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lightning_mem1.io.redaction import reason, redacted
from lightning_mem1.io.uninterrupted import uninterrupted
from lightning_mem1.tracking.standing_clients import ClosedClient, LaterClient
from lightning_mem1.tracking.store import StoreUnavailable, make_beside, prepare, use
from lightning_mem1.training.lightning_internals import PlainMLFlowLogger

MAX_METRICS_PER_CALL = 1000  # of MLflow
MAX_PARAM_LENGTH = 250  # of Lightning's logger
RETRY_S = 30.0  # a store that could not be opened is not asked again before
UNOPENED = "http://127.0.0.1:9"  # a store that Lightning's logger makes nothing of
TRIES = 3  # to find or make an experiment that another process may make or delete at the same time


class DeletedExperiment(ValueError):
    """The experiment was deleted in the store."""


Point = tuple[str, float, int, int]  # key, value, milliseconds since 1970, step


class ResumableMLflowLogger(PlainMLFlowLogger):
    """MLflow's run of a training, which may be resumed.

    The run is made with the first call that needs it. Metrics go to MLflow at once until `holds` is set. A setting that
    another attempt has given another value becomes the tag ``changed/<setting>``, because MLflow's parameters never
    change.

    Args:
        experiment_name: MLflow's experiment.
        run_name: Name of a new run.
        tracking_uri: MLflow's store.
        run_id: The run to resume; one that the store does not have, or no longer, is replaced by a new one.

    Attributes:
        holds: Whether numbers wait for `send`.
        outbox: What waits, oldest first.
        goes_on: What becomes of a run whose store cannot be used, for the message.
    """

    def __init__(self, experiment_name: str, run_name: str, tracking_uri: str, run_id: str | None = None) -> None:
        super().__init__(experiment_name=experiment_name, run_name=run_name, tracking_uri=UNOPENED)
        self.store_uri = tracking_uri
        self.holds = False
        self.outbox: list[Point] = []
        self._newest: dict[str, int] = {}  # step of each key's last point
        self.goes_on = "the training continues, numbers wait in the checkpoints"  # and are sent when it can take them
        self._failed = False
        self._params: dict[str, str] = {}  # of the attempts before
        self._waiting: dict[str, str] = {}  # parameters that the store did not take yet
        self._problem: Exception | None = None
        self._next_try = 0.0
        self._making: threading.Thread | None = None  # of a store that is not there yet
        self._put_off: list[tuple[str, Callable[[Any], object]]] = []
        self.current_run = run_id
        if run_id:
            self._take_up()

    @rank_zero_only
    def make_store_beside(self) -> None:
        """Make a store that is not there yet in a thread; the first call that needs it waits for that."""
        self._making = None if self.has_begun else make_beside(self.store_uri)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:  # type: ignore[override]
        """MLflow's client; one whose calls all raise `StoreUnavailable` while the store cannot be used."""
        if self._making:  # Lightning asks for it before it needs it
            return LaterClient(self)
        return self.client if self.is_open() else ClosedClient(self._problem)

    @property
    def run_id(self) -> str | None:
        """The run, made now where there is none."""
        self._settle()
        return self.current_run

    @property
    def experiment_id(self) -> str | None:
        """MLflow's number of the experiment."""
        self._settle()
        return self.current_experiment

    @rank_zero_only
    def _settle(self) -> None:
        self.is_open()

    def put_off(self, what: str, send: Callable[[Any], object]) -> bool:
        """Have `send` called when the store is open, if it is being made; whether that is so.

        Args:
            what: Names it, for the message.
            send: Takes this logger.
        """
        if self._making:
            self._put_off.append((what, send))
        return self._making is not None

    @rank_zero_only
    def _take_up(self) -> None:
        self.is_open()

    def is_open(self) -> bool:
        """Whether the store has the run; makes it, or takes it up, where that was not done yet.

        Raises:
            DeletedExperiment: only the user can say what should become of it.
        """
        if self._making:
            self._making.join()
            self._making = None
        if self.has_begun:
            return True
        if time.monotonic() < self._next_try:
            return False
        try:
            self._open()
        except DeletedExperiment:
            raise
        except Exception as error:  # every store raises its own kinds
            self._problem, self._next_try = error, time.monotonic() + RETRY_S
            self.complain("the run", error)
            return False
        self._failed = False
        self._send_what_was_put_off()
        return True

    def _send_what_was_put_off(self) -> None:
        self._send_params()
        while self._put_off:
            what, send = self._put_off.pop(0)
            try:
                send(self)
            except Exception as error:  # every store raises its own kinds
                self.complain(what, error)

    def check_open(self) -> None:
        """Raise `StoreUnavailable` where the store cannot be used."""
        if not self.is_open():
            raise StoreUnavailable(reason(self._problem or StoreUnavailable("the store cannot be used")))

    def _open(self) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
        from mlflow.tracking.context.registry import resolve_tags

        patient = self._problem is None
        try:
            prepare(self.store_uri, lambda line: print(redacted(line), file=sys.stderr), patient)
            use(self.store_uri)
            self.client = MlflowClient(self.store_uri)
            if self.current_run and not self._is_active(self.current_run):
                print(
                    f"MLflow has no run {self.current_run} (any more): the curves continue in a new one",
                    file=sys.stderr,
                )
                self.current_run = None
            if self.current_run:
                with uninterrupted():
                    self.client.update_run(self.current_run, status="RUNNING")
                    self.has_begun = True
            else:
                self.current_experiment = self._found_experiment()
                tags = resolve_tags({"mlflow.runName": str(self.run_title)})
                with uninterrupted():  # or nobody would end a run that is made
                    run = self.client.create_run(experiment_id=self.current_experiment, tags=tags)
                    self.current_run, self.has_begun = run.info.run_id, True
        except MlflowException as error:  # one is a ValueError too, in some versions
            raise StoreUnavailable(reason(error)) from error

    def _found_experiment(self) -> str:
        """The id of the experiment, made where there is none; another process may make it at the same time.

        Raises:
            DeletedExperiment: it was deleted.
        """
        from mlflow.exceptions import MlflowException

        for left in reversed(range(TRIES)):
            found = self.client.get_experiment_by_name(self.experiment_title)
            if found is not None and found.lifecycle_stage == "deleted":
                raise DeletedExperiment(
                    f"experiment was deleted in MLflow's store: expected an active one, got '{self.experiment_title}' "
                    f"(id {found.experiment_id}) deleted at {redacted(self.store_uri)}; bring it back with "
                    f"MLFLOW_TRACKING_URI={redacted(self.store_uri)} mlflow experiments restore --experiment-id "
                    f"{found.experiment_id}, or set --experiment to another name"
                )
            if found is not None:
                return str(found.experiment_id)
            try:
                return str(self.client.create_experiment(self.experiment_title))
            except MlflowException:
                if not left:
                    raise
        raise AssertionError

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

        if (self.outbox or self._waiting) and not self.is_open():
            return
        self._send_params()
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
        self._waiting |= {key: str(value)[:MAX_PARAM_LENGTH] for key, value in given.items()}
        if not self._making:
            self._send_params()

    def _send_params(self) -> None:
        if not self._waiting or not self.is_open():
            return
        try:
            super().log_hyperparams({key: each for key, each in self._waiting.items() if key not in self._params})
            for key, value in self._waiting.items():
                before = self._params.get(key, value)
                if value != before:
                    self.experiment.set_tag(self.run_id, f"changed/{key}", f"{value} (was {before})")
        except Exception as error:  # every store raises its own kinds
            self.complain("settings", error)
        else:
            self._params |= self._waiting
            self._waiting = {}

    def finalize(self, status: str = "success") -> None:
        """End the run; a store that cannot take that does not end the training in an error."""
        if self._making:  # it ended early: the run is made all the same, to say so
            self.is_open()
        if status == "success":  # all that waits is in the last checkpoint
            self._next_try = 0.0
            self.send()
        try:
            with uninterrupted():
                super().finalize(status)
        except Exception as error:  # every store raises its own kinds
            self.complain("the end of the run", error)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the run and what waits."""
        return {"run_id": self.current_run, "outbox": [list(point) for point in self.outbox]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what waited, if it is this run's."""
        if state["run_id"] in (self.current_run, None):
            self.outbox = [(str(key), float(value), int(ms), int(step)) for key, value, ms, step in state["outbox"]]
            self._newest = {key: step for key, _, _, step in self.outbox}

    def complain(self, what: str, error: Exception) -> None:
        """Say that the store did not take something; not again before it has taken numbers."""
        if not self._failed:
            print(f"MLflow did not take {what} ({reason(error)}): {self.goes_on}", file=sys.stderr)
        self._failed = True

    def _is_active(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        self._params, self.current_experiment = dict(run.data.params), run.info.experiment_id
        return run.info.lifecycle_stage == "active"
