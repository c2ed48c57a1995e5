"""The commands by name, and how one is run: first what needs no heavy import, then the command's own module."""

from __future__ import annotations

import argparse
import functools
import importlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_mem1.cli import alone, errors, help_pages, startup
from lightning_mem1.cli.weights import LAST, Uses

SETTINGS = ("seed_everything", "trainer", "model", "data", "ckpt_path", "experiment", "tracking_uri")
EVALUATE = ("objectives", "memory", "tasks", "temperature", "split", "output", "page", "published", "fresh")
CHAT = ("chat", "max_turns", "max_sessions", "session_timeout_s")


def never(argv: list[str]) -> argparse.Namespace | None:
    """A command that does not do without a config."""
    return None


@dataclass(frozen=True)
class Command:
    """A command; its module in this folder has the same name, with underscores.

    Attributes:
        about: What it does.
        keys: The top-level keys of its configs; none for a command that takes none and reads its arguments by itself.
        alone: Reads the arguments where they do without a config; None when they do not.
        uses: What it does with a checkpoint; None for nothing.
    """

    about: str
    keys: tuple[str, ...] = ()
    alone: Callable[[list[str]], argparse.Namespace | None] = never
    uses: Uses | None = None


COMMANDS = {
    "init": Command("write a task of your own to begin with: environment, expert, configs, test"),
    "fit": Command("train a policy by RL", SETTINGS, uses=Uses()),
    "evaluate": Command(
        "measure a policy on tasks of several lengths, in several memory modes",
        (*SETTINGS, *EVALUATE),
        uses=Uses(plays=True),
    ),
    "compare": Command("train and measure memory modes alike", ("compare", "memory", "seeds", "output")),
    "play": Command(
        "show one episode turn by turn",
        (*SETTINGS, "split", "index", "temperature", "max_lines", "human"),
        uses=Uses(plays=True),
    ),
    "export": Command(
        "write a checkpoint as a folder that transformers, peft and vLLM read",
        (*SETTINGS, "output", "merged", "dtype", "force", "push_to_hub", "private", "commit_message"),
        alone.export,
        Uses(default=LAST),
    ),
    "warmstart": Command("clone demonstrations into a small policy, before RL", ("warmstart",)),
    "serve": Command(
        "serve a policy over OpenAI's completions protocol, or an agent as chat completions",
        (*SETTINGS, "name", "host", "port", "allow_adapters", "allow_weights", *CHAT),
        alone.serve,
        Uses(plays=True),
    ),
    "serve-retriever": Command("serve a corpus to agents that search it"),
    "serve-shop": Command("open the shop in a browser, or write a catalogue"),
    "serve-openenv": Command("serve tasks of an environment over OpenEnv's protocol"),
    "make-encyclopedia": Command("write the passages of the generated encyclopedia"),
    "experiments": Command("list the experiments that come with the package, or copy one"),
}


def run(name: str, argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        name: Its name.
        argv: Its arguments; None for those of this process.

    Returns:
        The exit code: 0 done, 1 a mistake, 130 interrupted.
    """
    startup.let_threads_sleep()
    return errors.run(functools.partial(_run, name), argv)


def module(name: str) -> Any:
    """The module of a command; importing it may take seconds."""
    with startup.no_news():
        return importlib.import_module(f"lightning_mem1.cli.{name.replace('-', '_')}")


def _run(name: str, argv: list[str]) -> int:
    command = COMMANDS[name]
    if not command.keys:
        return int(module(name).main(argv))
    if _asks_for_the_page(argv):
        print(help_pages.page(name))
        return 0
    given = _opened(command, argv)
    return int(module(name).run(given))


def _asks_for_the_page(argv: Sequence[str]) -> bool:
    """``--help`` or ``-h``, but for ``--help all``."""
    return any(a in ("--help", "-h") and following != "all" for a, following in itertools.pairwise([*argv, ""]))


def _opened(command: Command, argv: list[str]) -> startup.Opened:
    if not startup.asks_for_help(argv) and (options := command.alone(argv)):
        startup.say_loading(options.loads)
        return startup.Opened(argv, options=options, given=argv)
    return startup.opened(argv, command.keys, command.uses)
