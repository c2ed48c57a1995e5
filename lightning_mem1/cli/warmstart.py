"""``mem1 warmstart CONFIG``: clone demonstrations into a small policy."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_mem1.cli import errors
from lightning_mem1.cli.memory_words import with_mode
from lightning_mem1.warmstart.settings import WarmStart
from lightning_mem1.warmstart.train import train


def main(argv: Sequence[str] | None = None) -> int:
    """``mem1 warmstart CONFIG [--dotted.override value]``; returns the exit code."""
    return errors.run(_sft, argv)


def _sft(argv: list[str]) -> int:
    import argparse

    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog="mem1 warmstart CONFIG",
        description="Clone a scripted shopper and a scripted researcher into a small policy.",
        parser_mode="omegaconf",
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="YAML file.")
    parser.add_class_arguments(WarmStart, "warmstart", instantiate=True)
    command, config = " ".join(["mem1 warmstart", *argv]), None
    if argv and not argv[0].startswith("-"):
        errors.check_config(config := argv[0])
        argv = ["--config", *argv]
    try:
        given = parser.parse_args(with_mode(argv, config, "warmstart.memory"))
    except argparse.ArgumentError as error:
        keys = list(vars(parser.get_defaults(skip_validation=True).as_flat()))
        raise ValueError(errors.explain_parsing(str(error), keys, config)) from error
    numbers = train(parser.instantiate(given).warmstart, command)
    print("  ".join(f"{name} {value:.3f}" for name, value in numbers.items()))
    return 0
