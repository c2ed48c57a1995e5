"""``mem1 fit CONFIG [--dotted.override value]``: train a policy.

A YAML holds only what differs from the defaults of `lightning_cli`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_mem1.callbacks import RLCheckpoint, default_callbacks
from lightning_mem1.callbacks.checkpoint import RUN
from lightning_mem1.callbacks.sigterm import ended_by_sigterm
from lightning_mem1.cli import commands, errors, restarts, run_folder, startup
from lightning_mem1.cli.foreign_keys import check_trainer
from lightning_mem1.cli.lightning_cli import CommandLine, flat, mlflow_logger
from lightning_mem1.cli.weights import LAST, Asked
from lightning_mem1.io.atomic_files import write_atomic
from lightning_mem1.io.own_code import raised_by_user
from lightning_mem1.io.redaction import redacted, redacted_settings
from lightning_mem1.training.checkpoint_shape import check_resumable
from lightning_mem1.training.memory_estimate import memory_line
from lightning_mem1.training.strategy import num_shards


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit code (0 done or ended by SIGTERM, 1 a mistake, 130 interrupted)."""
    return commands.run("fit", argv)


def run(given: startup.Opened) -> int:
    """Train as an opened command line says; returns the exit code."""
    with startup.quiet(), startup.restored_interrupts(), ended_by_sigterm(), run_folder.releasing():
        cli = startup.built(TrainingCommandLine, given)
        return 0 if cli is None else _train(cli)


class SaveConfig(SaveConfigCallback):
    """Writes config.yaml next to the checkpoints and logs every setting as a parameter."""

    def save_config(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Write and log; secrets are taken out."""
        path = Path(trainer.default_root_dir) / self.config_filename
        text = self.parser.dump(self.config, skip_none=False)
        content = yaml.safe_load(text)
        if (shown := redacted_settings(content)) != content:  # before anything is on the disk
            text = yaml.safe_dump(shown, sort_keys=False)
        write_atomic(path, text.encode())
        settings = flat(redacted_settings(self.config.as_dict()))
        for logger in trainer.loggers:
            logger.log_hyperparams(settings)


class TrainingCommandLine(CommandLine):
    """Makes a trainer with this package's callbacks, its logger and a folder of its own."""

    command = "fit"
    about = "Train a policy by RL."
    saves_config = SaveConfig
    run_id: str | None = None  # of the MLflow run that is resumed
    restarted = False  # by torchrun, and this launch's own run is resumed

    def before_instantiate_classes(self) -> None:
        """Check what is resumed, and say how much memory it will take, before anything large is loaded."""
        self._resume_own_run()
        super().before_instantiate_classes()
        if self.resume_path:
            check_resumable(torch.load(self.resume_path, map_location="cpu", weights_only=True), self.resume_path)
        trainer = self.config.trainer
        check_trainer(trainer)
        line = memory_line(self.config.model.as_dict(), trainer.accelerator == "cpu", num_shards(trainer))
        if line and startup.is_first_rank():
            print(line, flush=True)

    def _resume_own_run(self) -> None:
        """After torchrun has restarted the ranks, resume the run that they had begun, whatever was resumed then."""
        root, experiment = self.config.trainer.default_root_dir, self.config.experiment or self.experiment
        folder = restarts.begun_in(Asked(None, root, experiment).folder)
        last = folder / "checkpoints" / "last.ckpt" if folder else None
        if last and last.is_file():
            self.restarted, self.config.ckpt_path = True, str(last)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the callbacks, the logger and the folder of the run."""
        given: Namespace = self.config_init.trainer
        self._settle_folder(given)
        own = given.callbacks or []
        given.callbacks = default_callbacks(*(own if isinstance(own, list | tuple) else [own]))
        if given.logger is None or given.logger is True:
            name = Path(given.default_root_dir).name
            given.logger = mlflow_logger(self.experiment, self.config.tracking_uri, name, self.run_id)
            if not given.fast_dev_run:  # which logs nothing
                given.logger.make_store_beside()
        return super().instantiate_trainer(**kwargs)

    def _settle_folder(self, given: Namespace) -> None:
        last, root = self.restarted or self.config.ckpt_path == LAST, given.default_root_dir
        self.run_id = _run_of(self.resume_path) if last and self.resume_path else None
        if not self.config.experiment:  # a saved config names its experiment, and is called config
            self.experiment = run_folder.experiment_of(self.config_path, root) or self.experiment
        folder = run_folder.settled(root, self.experiment, self.resume_path, last, self.config_path)
        given.default_root_dir = self.config.trainer.default_root_dir = str(folder)
        self.config.experiment = self.experiment


def _train(cli: TrainingCommandLine) -> int:
    checkpoints = [c for c in cli.trainer.checkpoint_callbacks if isinstance(c, RLCheckpoint)]
    restarts.meet_again(cli.trainer.strategy)
    try:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=cli.resume_path, weights_only=True)
    except SystemExit as left:  # how Lightning leaves after Ctrl-C, and after SIGTERM at the end of an rl_step
        if raised_by_user(left):
            raise
        if cli.trainer.is_global_zero:
            print(_say_what_is_kept(getattr(cli.model, "rl_step", 0), checkpoints), file=sys.stderr)
        return 0 if isinstance(left, SIGTERMException) else errors.INTERRUPTED
    _say_where(cli.trainer, checkpoints)
    return 0


def _say_what_is_kept(done: int, checkpoints: Sequence[Any]) -> str:
    """How far an interrupted run came, and how many rl_steps of it are on disk."""
    path = next((c.last_path for c in checkpoints if c.last_path.is_file()), None)
    if path is None:
        return (
            f"interrupted after {done} rl_steps; {'no checkpoint was written' if done else 'nothing was trained yet'}"
        )
    kept = torch.load(path, map_location="cpu", weights_only=True)["lightning_mem1"]["rl_step"]
    lost = "" if kept == done else f", {kept} of them kept"
    return f"interrupted after {done} rl_steps{lost}; resume with --ckpt_path {path}"


def _say_where(trainer: Trainer, checkpoints: Sequence[Any]) -> None:
    from lightning_mem1.tracking.artifacts import mlflow_runs
    from lightning_mem1.training.lightning_internals import tracking_uri

    if not trainer.is_global_zero:
        return
    for checkpoint in checkpoints:
        print(f"adapter {checkpoint.adapter_path}, checkpoint {checkpoint.last_path}")
    for logger in mlflow_runs(trainer):  # none with fast_dev_run, where Lightning puts another kind in their places
        if not getattr(logger, "is_open", lambda: True)():
            print("curves: not in MLflow yet; --ckpt_path last sends them, with a larger data.num_rl_steps or the same")
        else:
            uri = redacted(str(tracking_uri(logger)))
            print(f"curves and transcripts: mlflow ui --backend-store-uri {uri}")


def _run_of(path: str) -> str | None:
    """The MLflow run that a checkpoint was written in, None when there was none."""
    run = torch.load(path, map_location="cpu", weights_only=True).get(RUN)
    run_id = run.get("run_id") if isinstance(run, dict) else None
    return run_id if isinstance(run_id, str) else None
