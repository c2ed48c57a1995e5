"""``mem1 warmstart CONFIG [--dotted.override value]``: clone demonstrations into a small policy."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser

from lightning_mem1.cli import base_60, commands, errors, startup
from lightning_mem1.cli.memory_words import with_mode
from lightning_mem1.warmstart.settings import WarmStart
from lightning_mem1.warmstart.train import train


def main(argv: Sequence[str] | None = None) -> int:
    """Clone; returns the exit code (0 done, 1 a mistake, 130 interrupted)."""
    return commands.run("warmstart", argv)


def run(given: startup.Opened) -> int:
    """Clone as an opened command line says; returns the exit code."""
    settings = startup.built(_settings, given)
    if settings is None:
        return 0
    numbers = train(settings, " ".join(["mem1 warmstart", *given.given]))
    print("  ".join(f"{name} {value:.3f}" for name, value in numbers.items()))
    return 0


def full_parser() -> ArgumentParser:
    """The parser of all settings."""
    parser = ArgumentParser(
        prog="mem1 warmstart",
        usage="%(prog)s CONFIG [--KEY VALUE ...]",
        description="Clone demonstrations into a small policy: yours, or those of scripted agents.",
        parser_mode="omegaconf",
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="YAML file.")
    parser.add_class_arguments(WarmStart, "warmstart", instantiate=True)
    return parser


def _settings(argv: list[str], config: str | None) -> Any:
    parser = full_parser()
    try:
        given = parser.parse_args(with_mode(argv, config, "warmstart.memory"))
    except argparse.ArgumentError as error:
        keys = list(vars(parser.get_defaults(skip_validation=True).as_flat()))
        raise ValueError(errors.explain_parsing(str(error), keys, config, argv)) from error
    base_60.check(vars(given.as_flat()), config, errors.options(argv))
    return parser.instantiate(given).warmstart
