"""``mem1 --print_completion bash``: what a shell completes after ``mem1``, by jsonargparse and shtab."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from jsonargparse import ArgumentParser

from lightning_mem1.cli import compare, errors, experiments, warmstart
from lightning_mem1.cli.commands import COMMANDS, module
from lightning_mem1.cli.evaluate import EvaluatingCommandLine
from lightning_mem1.cli.export import ExportingCommandLine
from lightning_mem1.cli.fit import TrainingCommandLine
from lightning_mem1.cli.play import WatchingCommandLine
from lightning_mem1.cli.serve import ServingCommandLine

SHELLS = ("bash", "zsh", "tcsh")
PARSERS = {  # of the commands with configs
    "fit": TrainingCommandLine.full_parser,
    "evaluate": EvaluatingCommandLine.full_parser,
    "play": WatchingCommandLine.full_parser,
    "export": ExportingCommandLine.full_parser,
    "compare": compare.full_parser,
    "warmstart": warmstart.full_parser,
    "serve": ServingCommandLine.full_parser,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the script for a shell; returns the exit code (0 done, 1 a mistake)."""
    return errors.run(_completion, argv)


def _completion(argv: list[str]) -> int:
    shell = argv[0] if argv else "bash"
    if shell not in SHELLS:
        raise ValueError(f"no completion for this shell: expected one of {', '.join(SHELLS)}, got '{shell}'")
    if not find_spec("shtab"):
        raise ValueError("completion needs the package shtab, got none: pip install 'lightning_mem1[completion]'")
    print(script(shell))
    return 0


def script(shell: str) -> str:
    """The script, to be evaluated by the shell when it starts."""
    parser = ArgumentParser(prog="mem1")
    commands = parser.add_subcommands()
    for name, command in COMMANDS.items():
        if name in PARSERS:
            own = PARSERS[name]()
            own.add_argument("CONFIG", nargs="?", choices=experiments.names())
        else:
            own = module(name).parser(ArgumentParser)
        commands.add_subcommand(name, own, help=command.about)
    return str(parser.get_completion_script(f"shtab-{shell}"))
