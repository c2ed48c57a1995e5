"""The LightningCLI that every command shares: a positional config, dotted overrides, one-line errors.

Importing this imports Lightning, which takes seconds: the first line of a command is on the screen before.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from transformers.utils import logging as transformers_logging

from lightning_mem1.checks import SEED, check_number, check_numbers
from lightning_mem1.cli import base_60, errors, full_help, setting_keys, startup
from lightning_mem1.cli.memory_words import with_mode
from lightning_mem1.cli.setting_keys import dotted, flat
from lightning_mem1.cli.weights import Asked, needs_saying
from lightning_mem1.data.task_data import TaskDataModule
from lightning_mem1.io.redaction import redacted_settings, remember
from lightning_mem1.training import checkpoint_state
from lightning_mem1.training.checkpoint_shape import check_shape
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.training.trainer import TRAINER_DEFAULTS, TRAINER_RANGES


class CommandLine(LightningCLI):
    """Positional config, defaults of this package, one-line errors.

    Attributes:
        experiment: Name of the experiment, the config's when none is given.
        resume_path: The checkpoint of ``--ckpt_path``, found and checked; None without one.
    """

    command = "fit"
    about = ""
    saves_config: type[SaveConfigCallback] | None = None
    without_checkpoint = "leave --ckpt_path out"  # what to do when there is none
    plays = False  # so that it has to be said which weights

    def __init__(self, argv: list[str], config_path: str | None) -> None:
        self.argv = argv
        self.config_path = config_path
        self.experiment = Path(config_path).stem if config_path else "experiment"
        self.resume_path: str | None = None
        super().__init__(
            Mem1Module,
            TaskDataModule,
            self.saves_config,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_kwargs={
                "parser_mode": "omegaconf",
                "exit_on_error": False,
                "allow_abbrev": False,
                "prog": f"mem1 {self.command} CONFIG",
                "description": self.about,
            },
            subclass_mode_data=True,
            run=False,
            args=with_mode(argv, config_path),
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @classmethod
    def full_parser(cls) -> LightningArgumentParser:
        """The parser of all settings, with nothing parsed."""
        made = []

        class Unparsed(cls):  # type: ignore[misc, valid-type]
            def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
                made.append(parser)
                raise SystemExit(0)

        with contextlib.suppress(SystemExit):
            Unparsed([], None)
        return made[0]

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the settings of every command."""
        parser.set_defaults({"data": {"class_path": "WebShopData"}})
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="Weights: last, best, a checkpoint, or none for model.policy as it is.",
        )
        parser.add_argument("--experiment", type=str | None, default=None, help="Name; null for the config's.")
        parser.add_argument(
            "--tracking_uri",
            type=str | None,
            default=None,
            help="MLflow's store of the default logger; null for MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, or show help; a mistake is named with the nearest right key."""
        if what := full_help.asked(args):
            full_help.show(parser, what)
            raise SystemExit(0)
        try:
            super().parse_arguments(parser, args)
        except argparse.ArgumentError as error:
            base_60.check({}, self.config_path, ())
            known = known_keys(parser)
            raise ValueError(errors.explain_parsing(str(error), known, self.config_path, args)) from error
        remember(self.config.as_dict())
        base_60.check(dotted(self.config.as_dict()), self.config_path, errors.options(args))
        if not isinstance(seed := self.config.seed_everything, bool):
            check_number("seed_everything", seed, SEED)
        check_numbers("trainer", Trainer, self.config.trainer.as_dict(), TRAINER_RANGES)

    def before_instantiate_classes(self) -> None:
        """Settle what depends on the machine and on other settings."""
        self.experiment = checked_name(self.config.experiment) if self.config.experiment else self.experiment
        self.config.model.policy = bundled_for(self.config.model.policy, self.config.data.get("init_args") or {})
        trainer = self.config.trainer
        trainer.accelerator = accelerator(trainer.accelerator)
        asked = Asked(self.config.ckpt_path, trainer.default_root_dir, self.experiment, self.without_checkpoint)
        if self.plays and needs_saying(self.argv):
            asked.check_said()
        self.resume_path = checkpoint_path(asked)
        on_cpu = trainer.accelerator == "cpu"
        if trainer.deterministic is None and on_cpu:
            trainer.deterministic = True  # float additions in a fixed order: same seed, same digits
            # a debugging aid that costs time
            setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
        _set_threads(on_cpu)
        no_progress_bars()

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting, dotted, without secrets."""
        return flat(redacted_settings(self.config.as_dict()))


def bundled_for(policy: str, data: Mapping[str, Any]) -> str:
    """The bundled policy that can read the pages; any other name as it is.

    Args:
        policy: Name of the policy.
        data: Settings of the data: official files (`catalogue`) or listings like theirs (`marketplace`), or neither.
    """
    if policy != "bundled" or not (data.get("catalogue") or data.get("marketplace")):
        return policy
    if startup.is_first_rank():
        print("model.policy bundled: bundled_marketplace, which reads pages like the official ones", flush=True)
    return "bundled_marketplace"


class PlayingCommandLine(CommandLine):
    """A command line that plays and never trains: it makes no trainer and no folder."""

    plays = True

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Nothing is trained."""
        return None

    def loaded_module(self) -> Mem1Module:
        """The module on its device, with the weights of the checkpoint, ready to play.

        Raises:
            ValueError: the checkpoint belongs to another base or adapter.
        """
        module: Mem1Module = self.model
        if self.resume_path:
            module.on_load_checkpoint(checkpoint_state.read(self.resume_path))
        kind = "cpu" if self.config.trainer.accelerator == "cpu" else "cuda"
        return module.to(kind).eval()


def checked_name(experiment: str) -> str:
    """The name of an experiment, which names a folder: raises ValueError when it would lead out of `runs`."""
    if not re.fullmatch(r"[\w][\w .+-]*", experiment):
        raise ValueError(
            f"not a name for an experiment: expected letters, digits, spaces and . _ + -, got '{experiment}'; "
            "set --experiment"
        )
    return experiment


def known_keys(parser: Any) -> list[str]:
    """All keys of the settings, dotted, without ``init_args``."""
    return setting_keys.known(parser.get_defaults().as_dict(), full_help.DATA)


def checkpoint_path(asked: Asked) -> str | None:
    """The checkpoint that is asked for, checked: it must load, and without running anything in it."""
    path = asked.path()
    if path is None:
        return None
    errors.check_printable([str(path)])
    _check_checkpoint(path)
    return str(path)


def _check_checkpoint(path: Path) -> None:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile and pickle each raise their own kinds
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"corrupt checkpoint: expected a complete file that this package wrote, got '{path}' ({reason}); "
            "set --ckpt_path to another one, e.g. checkpoints/best.ckpt"
        ) from error
    if not isinstance(content, dict) or "lightning_mem1" not in content:
        raise ValueError(f"not a checkpoint of lightning_mem1: '{path}'; set --ckpt_path to a file that it wrote")
    check_shape(content, str(path))


def mlflow_logger(experiment: str, tracking_uri: str | None, run_name: str, run_id: str | None = None) -> Any:
    """The default logger: a run ``<experiment>/<run_name>`` of MLflow, or the one that is resumed."""
    from lightning_mem1.tracking import store
    from lightning_mem1.tracking.mlflow_logger import ResumableMLflowLogger

    return ResumableMLflowLogger(experiment, f"{experiment}/{run_name}", store.tracking_uri(tracking_uri), run_id)


def accelerator(given: Any) -> Any:
    """``"auto"`` is CUDA or the CPU: Lightning's would take Apple's GPU, which lacks the float64 of sampling."""
    if given == "mps":
        raise ValueError("trainer.accelerator cannot be used: expected auto, cpu or cuda, got 'mps'; set it to cpu")
    if given != "auto":
        return given
    return "cuda" if torch.cuda.is_available() else "cpu"


def no_progress_bars() -> None:
    """Switch off the progress bars of transformers."""
    transformers_logging.disable_progress_bar()


def _set_threads(on_cpu: bool) -> None:
    """One thread per physical core, unless the environment says otherwise."""
    if on_cpu and "OMP_NUM_THREADS" not in os.environ and hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len({_siblings(cpu) for cpu in os.sched_getaffinity(0)}))


def _siblings(cpu: int) -> str:
    """Names the hyper-threads that share a physical core with this one."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return path.read_text() if path.is_file() else str(cpu)
