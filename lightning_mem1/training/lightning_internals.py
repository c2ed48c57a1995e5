"""Everything of Lightning that is not public and that this package needs: one function for each, and nowhere else.

Written against Lightning 2.6; when a new version breaks one of them, this file is what to repair.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection


class _StepResults(_ResultCollection):
    """Lightning's collection of logged values, which starts again with every batch.

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


def logged_in_this_step(trainer: Trainer) -> dict[str, float]:
    """What Lightning is about to send to the loggers for the batch that ends; nothing between two such steps.

    It sends it after the callbacks' `on_train_batch_end`, which is too late for a checkpoint that is written there.
    """
    connector = trainer._logger_connector
    if not connector.should_update_logs:
        return {}
    return {key: float(value) for key, value in connector.metrics["log"].items() if key != "step"}


def process_group_arguments(strategy: Any) -> dict[str, Any] | None:
    """What a strategy makes its process group with; None for one that makes none."""
    choose = getattr(strategy, "_get_process_group_backend", None)
    if choose is None:
        return None
    device = strategy.root_device
    return {"backend": choose(), "timeout": strategy._timeout, "device_id": None if device.type == "cpu" else device}


def run_validation(trainer: Trainer) -> None:
    """Run the validation loop as the training loop itself does between two batches; a resumed one from its start."""
    connector = trainer._logger_connector
    first = connector._first_loop_iter
    trainer.fit_loop.epoch_loop.val_loop.restarting = False
    trainer.validating = True
    trainer.fit_loop.epoch_loop.val_loop.run()
    trainer.training = True
    connector._first_loop_iter = first


def count_last_batch_as_done(trainer: Trainer) -> None:
    """Let the training loop's counts of batches say that the last one is over.

    They do already, but for a run that is resumed behind its last rl_step: it plays no batch that would be counted.
    """
    loop: Any = trainer.fit_loop.epoch_loop
    for counts in (loop.batch_progress.current, loop.batch_progress.total):
        counts.completed = counts.processed
    loop._batches_that_stepped = loop.batch_progress.total.processed


def replace_sigterm_handler(trainer: Trainer, handler: Callable[..., None]) -> None:
    """Have Lightning install this handler of SIGTERM in place of its own; to be called before it does, in `setup`."""
    trainer._signal_connector._sigterm_notifier_fn = handler  # type: ignore[method-assign]


def end_by_sigterm(trainer: Trainer) -> None:
    """Have Lightning end the run as after a SIGTERM, as soon as the hook that runs is over."""
    trainer._signal_connector.received_sigterm = True


def share_over_all_ranks(strategy: ModelParallelStrategy) -> None:
    """Make the mesh's data-parallel side as long as there are ranks; to be called before the mesh is made."""
    strategy._data_parallel_size = strategy.num_processes * strategy.num_nodes


def resumes(module: LightningModule) -> bool:
    """Whether a module is given a checkpoint in order to train on, not to be looked at or played with."""
    return module._trainer is not None and module._trainer.state.fn == "fit"


def tracking_uri(logger: Logger) -> str | None:
    """The store that a logger of MLflow writes to; None for another kind of logger."""
    uri = getattr(logger, "_tracking_uri", None)
    return uri if uri is None else str(uri)


class PlainMLFlowLogger(MLFlowLogger):
    """Lightning's logger for MLflow; what a subclass has to read and set is here by public names."""

    @property
    def store_uri(self) -> str:
        """Address of the store."""
        return str(self._tracking_uri)

    @store_uri.setter
    def store_uri(self, uri: str) -> None:
        self._tracking_uri = uri

    @property
    def client(self) -> Any:
        """MLflow's client, before there is a run (`experiment` would make one)."""
        return self._mlflow_client

    @client.setter
    def client(self, client: Any) -> None:
        self._mlflow_client = client

    @property
    def current_run(self) -> str | None:
        """The run; None as long as there is none (`run_id` would make one)."""
        return self._run_id

    @current_run.setter
    def current_run(self, run_id: str | None) -> None:
        self._run_id = run_id

    @property
    def current_experiment(self) -> str | None:
        """The id of the experiment; None as long as it is not known."""
        return self._experiment_id

    @current_experiment.setter
    def current_experiment(self, experiment_id: str | None) -> None:
        self._experiment_id = experiment_id

    @property
    def experiment_title(self) -> str:
        """Name of the experiment."""
        return str(self._experiment_name)

    @property
    def run_title(self) -> str:
        """Name of the run."""
        return str(self._run_name)

    @property
    def has_begun(self) -> bool:
        """Whether there is a run to write to."""
        return self._initialized

    @has_begun.setter
    def has_begun(self, begun: bool) -> None:
        self._initialized = begun
