"""What every command does before its heavy imports: find the config, say that it is being loaded, hush other libraries.

A command's first line is on the screen before Lightning is imported, which takes seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from lightning_mem1.cli import errors

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


def opened(argv: list[str]) -> tuple[list[str], str | None]:
    """Find and check the config of a command line, and say that it is being loaded.

    Returns:
        The arguments with a leading ``CONFIG`` as ``--config CONFIG``, and the config's path (None only when the
        command line asks for help or for the settings).

    Raises:
        FileNotFoundError, ValueError: there is no config, or it is not YAML.
    """
    argv, config = _with_config_option(argv)
    if any(a in ("--help", "-h") or a.startswith(("--help", "--print_config")) for a in argv):
        return argv, config
    if config is None:
        raise ValueError("no config: expected a YAML file, e.g. experiments/webshop.yaml; --help lists the settings")
    errors.check_config(config)
    if is_first_rank():
        print(f"loading {config} ...", flush=True)
    return argv, config


def is_first_rank() -> bool:
    """Whether this process is the first of its run, or the only one: torchrun, SLURM and Lightning say so."""
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return next((rank for rank in ranks if rank), "0") == "0"


def built(command_line: Callable[[list[str], str | None], Any], argv: list[str], config: str | None) -> Any:
    """Parse and instantiate everything; None when the command line only asked to show something."""
    import argparse

    try:
        return command_line(argv, config)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    except SystemExit as done:  # --help and --print_config
        if done.code:
            raise
        return None


def _with_config_option(argv: list[str]) -> tuple[list[str], str | None]:
    """Turn a leading ``CONFIG`` into ``--config CONFIG``; also returns the config's path, None without one."""
    if argv and not argv[0].startswith("-"):
        argv = ["--config", *argv]
    for number, argument in enumerate(argv):
        if argument in ("--config", "-c") and number + 1 < len(argv):
            return argv, argv[number + 1]
        if argument.startswith("--config="):
            return argv, argument.removeprefix("--config=")
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
    logging.disable(logging.INFO)  # a fresh MLflow store configures loggers of its own and tells of each table
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
