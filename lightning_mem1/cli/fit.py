"""``python -m lightning_mem1.fit CONFIG [--dotted.override value]``: train a policy.

A YAML holds only what differs from the defaults of `command_line`. Heavy imports happen inside functions, so that the
first line is on the screen before they begin.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_mem1.cli import errors, startup
from lightning_mem1.io.redaction import redacted

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.cli import LightningCLI

RUN_FOLDER = "LIGHTNING_MEM1_RUN_FOLDER"  # tells the processes of further ranks where the first one writes


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit code (0 done or ended by SIGTERM, 1 a mistake, 130 interrupted)."""
    return errors.run(_fit, argv)


def _fit(argv: list[str]) -> int:
    argv, config = startup.opened(argv)
    with startup.quiet(), startup.restored_interrupts():
        cli = startup.built(_command_line_class(), argv, config)
        return 0 if cli is None else _train(cli)


def _train(cli: LightningCLI) -> int:
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from lightning_mem1.callbacks import RLCheckpoint

    path = cli.resume_path  # type: ignore[attr-defined]
    checkpoints = [c for c in cli.trainer.checkpoint_callbacks if isinstance(c, RLCheckpoint)]
    try:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=path, weights_only=True)
    except SystemExit as left:  # how Lightning leaves after Ctrl-C, and after SIGTERM at the end of an rl_step
        if cli.trainer.is_global_zero:
            print(_say_what_is_kept(getattr(cli.model, "rl_step", 0), checkpoints), file=sys.stderr)
        return 0 if isinstance(left, SIGTERMException) else errors.INTERRUPTED
    _say_where(cli.trainer, checkpoints)
    return 0


def _say_what_is_kept(done: int, checkpoints: Sequence[Any]) -> str:
    """How far an interrupted run came, and how many rl_steps of it are on disk."""
    import torch

    path = next((c.last_path for c in checkpoints if c.last_path.is_file()), None)
    if path is None:
        return (
            f"interrupted after {done} rl_steps; {'no checkpoint was written' if done else 'nothing was trained yet'}"
        )
    kept = torch.load(path, map_location="cpu", weights_only=True)["lightning_mem1"]["rl_step"]
    lost = "" if kept == done else f", {kept} of them kept"
    return f"interrupted after {done} rl_steps{lost}; resume with --ckpt_path {path}"


def _say_where(trainer: Trainer, checkpoints: Sequence[Any]) -> None:
    from lightning_mem1.training.lightning_internals import tracking_uri

    if not trainer.is_global_zero:
        return
    for checkpoint in checkpoints:
        print(f"adapter {checkpoint.adapter_path}, checkpoint {checkpoint.last_path}")
    for logger in trainer.loggers:
        if uri := tracking_uri(logger):
            print(f"curves and transcripts: mlflow ui --backend-store-uri {redacted(uri)}")


def _command_line_class() -> type[LightningCLI]:
    """The command line of training (made here because importing Lightning takes seconds)."""
    import yaml
    from jsonargparse import Namespace
    from lightning.pytorch.cli import SaveConfigCallback

    from lightning_mem1.cli.lightning_cli import CommandLine, flat, mlflow_logger
    from lightning_mem1.io.redaction import redacted_settings
    from lightning_mem1.training.memory_estimate import memory_line
    from lightning_mem1.training.strategy import num_shards

    class SaveConfig(SaveConfigCallback):
        """Writes config.yaml beside the checkpoints and logs every setting as a parameter."""

        def save_config(self, trainer: Any, pl_module: Any, stage: str) -> None:
            path = Path(trainer.default_root_dir) / self.config_filename
            path.parent.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, str(path), skip_none=False, overwrite=True, multifile=False)
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            if (shown := redacted_settings(content)) != content:
                path.write_text(yaml.safe_dump(shown, sort_keys=False), encoding="utf-8")
            settings = flat(redacted_settings(self.config.as_dict()))
            for logger in trainer.loggers:
                logger.log_hyperparams(settings)

    class TrainingCommandLine(CommandLine):
        """Makes a trainer with this package's callbacks, its logger and a folder of its own."""

        command = "fit"
        about = "Train a constant-memory policy by reinforcement learning."
        saves_config = SaveConfig
        run_id: str | None = None  # MLflow's run to go on with

        def before_instantiate_classes(self) -> None:
            """Say how much memory it will take, before anything large is loaded."""
            super().before_instantiate_classes()
            trainer = self.config.trainer
            line = memory_line(self.config.model.as_dict(), trainer.accelerator == "cpu", num_shards(trainer))
            if line and startup.is_first_rank():
                print(line, flush=True)

        def instantiate_trainer(self, **kwargs: Any) -> Trainer:
            given: Namespace = self.config_init.trainer
            self._settle_folder(given)
            given.callbacks = _callbacks(given.callbacks)
            if given.logger is None or given.logger is True:
                name = Path(given.default_root_dir).name
                given.logger = mlflow_logger(self.experiment, self.config.tracking_uri, name, self.run_id)
            return super().instantiate_trainer(**kwargs)

        def _settle_folder(self, given: Namespace) -> None:
            resumed = self.resume_path if self.config.ckpt_path == "last" else None
            self.run_id = _run_of(resumed) if resumed else None
            if given.default_root_dir is None:
                given.default_root_dir = str(Path(resumed).parents[1] if resumed else new_folder(self.experiment))
            self.config.trainer.default_root_dir = str(given.default_root_dir)

    return TrainingCommandLine


def _run_of(path: str) -> str | None:
    """The MLflow run that a checkpoint was written in, None when there was none."""
    import torch

    from lightning_mem1.callbacks.checkpoint import RUN

    run = torch.load(path, map_location="cpu", weights_only=True).get(RUN)
    run_id = run.get("run_id") if isinstance(run, dict) else None
    return run_id if isinstance(run_id, str) else None


def new_folder(experiment: str, runs: str | Path = "runs") -> Path:
    """Make ``runs/<experiment>/<number>``, the next free number; further ranks make and write none."""
    parent, _, folder_of_parent = os.environ.get(RUN_FOLDER, "").partition(":")
    if "LOCAL_RANK" in os.environ and parent == str(os.getppid()):  # no earlier run's of whoever called torchrun
        return Path(folder_of_parent)
    if not startup.is_first_rank():  # started by torchrun or SLURM: it cannot know the first one's
        return Path(runs) / experiment
    number = 0
    while True:
        folder = Path(runs) / experiment / str(number)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            continue
        os.environ[RUN_FOLDER] = f"{os.getpid()}:{folder}"
        return folder


def _callbacks(given: Any) -> list[Any]:
    """The callbacks of every run, in the order they need, with the ones given in place of or after them."""
    from lightning_mem1 import callbacks as ours

    given = list(given) if isinstance(given, list | tuple) else [given] if given else []
    defaults = (
        ours.RolloutCallback,
        ours.RewardCallback,
        ours.AnswerCallback,
        ours.FailuresCallback,
        ours.MemoryUsageCallback,
        ours.TranscriptCallback,
        ours.TraceCallback,
        ours.PicturesCallback,
        ours.ProgressCallback,
        ours.RLCheckpoint,
        ours.ProvenanceCallback,
        ours.ModelCallback,
    )
    chosen = [next((g for g in given if isinstance(g, kind)), None) or kind() for kind in defaults]
    return [*chosen, *(g for g in given if g not in chosen)]
