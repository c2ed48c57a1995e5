"""The help that lists every setting: ``--help all``, ``--model.help``, ``--data.help`` and ``--trainer.help``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from typing import Any, get_args, get_type_hints

from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer

from lightning_mem1.data.agents import AgentData
from lightning_mem1.data.qa import QAData
from lightning_mem1.data.reading import ReadingData
from lightning_mem1.data.task_data import TaskDataModule
from lightning_mem1.data.webshop import WebShopData
from lightning_mem1.training.module import Mem1Module

DATA = (WebShopData, QAData, ReadingData, AgentData, TaskDataModule)
PARTS: dict[str, tuple[type, ...]] = {"model": (Mem1Module,), "data": DATA, "trainer": (Trainer,)}


def asked(argv: Sequence[str]) -> str | None:
    """What a command line asks for: all, a part (see `PARTS`), or None. ``--data.help CLASS`` is jsonargparse's own."""
    for number, argument in enumerate(argv):
        if argument in ("--help", "-h", "--help=all"):
            return "all"
        part = argument.removeprefix("--").removesuffix(".help")
        alone = number + 1 == len(argv) or argv[number + 1].startswith("-")
        if argument == f"--{part}.help" and part in PARTS and alone:
            return part
    return None


def show(parser: ArgumentParser, what: str) -> None:
    """Print the help, see `text`; whoever reads it, such as ``less``, may leave before the end."""
    try:
        print(text(parser, what), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes at its end


def text(parser: ArgumentParser, what: str) -> str:
    """The help.

    Args:
        parser: The full parser of a command.
        what: See `asked`.
    """
    if what != "all":
        return "\n\n".join(_part(parser, what))
    parser.usage = f"{parser.prog} [--KEY VALUE ...]"
    return "\n\n".join([parser.format_help().strip(), *_part(parser, "model")[1:], *_part(parser, "data")])


def _part(parser: ArgumentParser, name: str) -> list[str]:
    """The settings of the classes that stand under a top-level key, with the parser's defaults.

    A section for each class, then one for each of its settings that is a group or null (``model.lora``): jsonargparse
    leaves the settings inside of these out.
    """
    defaults = {} if name == "data" else vars(parser.get_defaults()[name])
    sections = []
    for kind in PARTS[name]:
        sections += [_section(kind, name, {f"{name}.{key}": value for key, value in defaults.items()})]
        sections += [_section(group, f"{name}.{key}", {}) for key, group in _optional_groups(kind)]
    return sections


def _section(kind: type, name: str, defaults: dict[str, Any]) -> str:
    section = ArgumentParser(usage=argparse.SUPPRESS, add_help=False, parser_mode="omegaconf")
    section.add_class_arguments(kind, name)
    section.set_defaults(defaults)
    return str(section.format_help()).strip()


def _optional_groups(kind: type) -> Iterator[tuple[str, type]]:
    for name, hint in get_type_hints(kind.__init__).items():  # type: ignore[misc]
        groups = [each for each in get_args(hint) if is_dataclass(each) and isinstance(each, type)]
        yield from ((name, group) for group in groups)
