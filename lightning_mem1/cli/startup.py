"""What every command does before its heavy imports: find the config, say that it loads, quiet other libraries.

A command's first line is on the screen before Lightning is imported, which takes seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import os
import re
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_mem1.cli import errors, experiments, weights
from lightning_mem1.io.own_code import raised_by_user

QUIET = (  # true of this package on purpose, and no news to a user
    ".*does not have many workers.*",
    ".*Checkpoint directory .* exists.*",
    ".*Found .* module.* in eval mode.*",
    ".*LightningCLI's args parameter.*",
    ".*GPU available but not used.*",
    ".*does not have a CUDA-capable.*",
    ".*isinstance.treespec, LeafSpec.*",
    ".*barrier.*device.*",
    ".*recommended to use .*sync_dist.*",  # the callbacks' torchmetrics have already met over ranks
    ".*is_gradient_checkpointing.*",  # transformers about itself
    ".*skip_none parameter.*",  # jsonargparse: its successor is not in every version of the range
)


WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def let_threads_sleep() -> None:
    """Let idle threads of torch sleep where the environment does not say how they wait; before torch is imported.

    By default they spin, and take a core from whatever else runs: with another busy process on two cores a rollout
    takes four times as long, against a fifth longer.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


@dataclass(frozen=True)
class Opened:
    """A command line, read as far as that goes without heavy imports.

    Attributes:
        argv: Its arguments, a leading ``CONFIG`` as ``--config PATH``.
        config: Path of the config; None where none is needed.
        options: The arguments, parsed, of a command line that does without a config (see `alone`).
        given: The arguments as they were typed.
        checkpoint: The checkpoint that was said to be loaded; None for none.
    """

    argv: list[str]
    config: str | None = None
    options: argparse.Namespace | None = None
    given: list[str] = field(default_factory=list)
    checkpoint: str | None = None


def opened(argv: list[str], keys: Sequence[str] = (), uses: weights.Uses | None = None) -> Opened:
    """Find and check the config of a command line, and say that it is being loaded, with which weights.

    Args:
        argv: The arguments.
        keys: The top-level keys that a config may have; none given: any.
        uses: What the command does with a checkpoint; None for nothing.

    Raises:
        FileNotFoundError, ValueError: there is no config, it is not YAML, or it has a key that does not exist.
    """
    given, (argv, config) = argv, _with_config_option(argv)
    if asks_for_help(argv):
        return Opened(_without_all(argv), config, given=given)
    shows_config = any(argument.startswith("--print_config") for argument in argv)
    if config is not None:
        errors.check_config(config, experiments.names(), keys)
    elif not shows_config:
        raise ValueError(
            "no config: expected a YAML file or the name of an experiment, e.g. webshop; mem1 experiments lists them"
        )
    if config is None or shows_config:
        return Opened(argv, config, given=given)
    what, checkpoint = weights.announced(argv, config, uses) if uses else ("", None)
    say_loading(f"{config}{what}")
    return Opened(argv, config, given=given, checkpoint=checkpoint)


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether a command line asks what the settings mean: ``--help``, ``-h``, ``--data.help``."""
    return any(a == "-h" or re.fullmatch(r"--([\w.]+\.)?help(=.*)?", a) for a in argv)


def _without_all(argv: list[str]) -> list[str]:
    """``--help all``, as parsers know it: ``--help``."""
    return [a for before, a in itertools.pairwise(["", *argv]) if (before, a) != ("--help", "all")]


def say_loading(what: str) -> None:
    """The first line of a command, once however many processes it has."""
    if is_first_rank():
        print(f"loading {what} ...", flush=True)


def is_first_rank() -> bool:
    """Whether this process is the first of its run, or the only one: torchrun, SLURM and Lightning say so."""
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return next((rank for rank in ranks if rank), "0") == "0"


def built(command_line: Callable[[list[str], str | None], Any], given: Opened) -> Any:
    """Parse and instantiate everything; None when the command line only asked to show something."""
    try:
        cli = command_line(given.argv, given.config)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    except SystemExit as done:  # --help and --print_config
        if done.code or raised_by_user(done):
            raise
        return None
    if is_first_rank() and (path := getattr(cli, "resume_path", None)) != given.checkpoint:
        print(weights.named(path, cli.config.model.policy), flush=True)  # settings can be given in more ways than read
    return cli


def _with_config_option(argv: list[str]) -> tuple[list[str], str | None]:
    """Turn a leading ``CONFIG`` into ``--config PATH``; also returns the config's path, None without one."""
    if argv and not argv[0].startswith("-"):
        argv = ["--config", *argv]
    for number, argument in enumerate(argv):
        if argument in ("--config", "-c") and number + 1 < len(argv):
            path = experiments.found(argv[number + 1])
            return [*argv[:number], "--config", path, *argv[number + 2 :]], path
        if argument.startswith("--config="):
            path = experiments.found(argument.removeprefix("--config="))
            return [*argv[:number], f"--config={path}", *argv[number + 1 :]], path
    return argv, None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what other libraries say about themselves; warnings and errors still come through."""
    import lightning.pytorch  # noqa: F401  (sets levels of its own when first imported)

    names = ("lightning.pytorch", "lightning.fabric", "lightning", "alembic", "mlflow", "bitsandbytes")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)  # a fresh MLflow store configures loggers of its own and logs each table
    with no_news():
        try:
            yield
        finally:
            logging.disable(disabled)
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def no_news() -> Iterator[None]:
    """Hold back the warnings of `QUIET`."""
    with warnings.catch_warnings():
        for message in QUIET:
            warnings.filterwarnings("ignore", f"(?s){message}")
        yield


@contextlib.contextmanager
def restored_interrupts() -> Iterator[None]:
    """Lightning ignores Ctrl-C from the first one on; give the handler back when done."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, handler)
