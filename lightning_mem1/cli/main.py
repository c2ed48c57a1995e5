"""``mem1 COMMAND`` and ``mem1 COMMAND``: finds the command and imports only that one."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from lightning_mem1 import __version__

COMMANDS: dict[str, tuple[str, str]] = {  # name: module, what it does
    "fit": ("cli.fit", "train a policy by RL"),
    "evaluate": ("cli.evaluate", "measure a policy on tasks of several lengths, in several memory modes"),
    "play": ("cli.play", "show one episode turn by turn"),
    "export": ("cli.export", "write a checkpoint as a folder that transformers, peft and vLLM read"),
    "warmstart": ("cli.warmstart", "clone demonstrations into a small policy, before RL"),
    "serve": ("cli.serve", "serve a policy over the OpenAI completions protocol"),
    "serve-retriever": ("cli.serve_retriever", "serve a corpus to agents that search it"),
    "serve-shop": ("cli.serve_shop", "open the shop in a browser, or write a catalogue"),
    "make-encyclopedia": ("cli.make_encyclopedia", "write the passages of the generated encyclopedia"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("--help", "-h"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"lightning_mem1 {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        print(f"error: {unknown(arguments[0])}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"lightning_mem1.{COMMANDS[arguments[0]][0]}")
    return int(module.main(arguments[1:]))


def usage() -> str:
    """What ``mem1 --help`` prints."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: mem1 COMMAND ...",
            "",
            "Train and evaluate agents that manage their own context.",
            "",
            *lines,
            "",
            "mem1 COMMAND --help shows what a command takes; mem1 --version the version.",
        ]
    )


def unknown(name: str) -> str:
    """One line about a command that does not exist."""
    nearest = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean '{nearest[0]}'?" if nearest else "mem1 --help lists them"
    return f"unknown command: expected one of {', '.join(COMMANDS)}, got '{name}'; {hint}"
