"""``mem1 COMMAND``, which is ``python -m lightning_mem1 COMMAND``: what is answered before a command is known."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence

from lightning_mem1 import __version__
from lightning_mem1.cli import commands
from lightning_mem1.cli.commands import COMMANDS

COMPLETION = "--print_completion"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit code (2 when it names no command)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("--help", "-h"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"lightning_mem1 {__version__}")
        return 0
    if COMPLETION in arguments:
        return int(commands.module("completion").main(arguments[arguments.index(COMPLETION) + 1 :]))
    if arguments[0] not in COMMANDS:
        print(f"error: {unknown(arguments[0])}", file=sys.stderr)
        return 2
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as for `python -m`: a config names classes and functions of files next to it
    return commands.run(arguments[0], arguments[1:])


def usage() -> str:
    """What ``mem1 --help`` prints."""
    width = max(map(len, COMMANDS)) + 2
    return "\n".join(
        [
            "usage: mem1 COMMAND ...",
            "",
            "Train and evaluate agents that manage their own context.",
            "",
            *(f"  {name:{width}}{command.about}" for name, command in COMMANDS.items()),
            "",
            "Examples and more:",
            "  mem1 fit webshop                train the shopper, from any folder",
            "  mem1 COMMAND --help             what a command takes",
            f"  mem1 {COMPLETION} bash    completion for your shell (bash, zsh or tcsh)",
            "  mem1 --version                  the version",
        ]
    )


def unknown(name: str) -> str:
    """One line about a command that does not exist."""
    nearest = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean '{nearest[0]}'?" if nearest else "mem1 --help lists them"
    return f"unknown command: expected one of {', '.join(COMMANDS)}, got '{name}'; {hint}"
