"""Writes docs/reference/settings.md from the code: every setting with its type, default, unit and meaning.

    python docs/settings.py           # write the page; a test compares it with the code

Meanings are those of the docstrings, so a setting is described once, where it is read.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

sys.path.insert(0, str(Path(__file__).parents[1]))

from docstring_parser import parse  # noqa: E402

from lightning_mem1 import callbacks  # noqa: E402
from lightning_mem1.context.modes import MODES  # noqa: E402
from lightning_mem1.data.agents import AgentData  # noqa: E402
from lightning_mem1.data.qa import QAData  # noqa: E402
from lightning_mem1.data.reading import ReadingData  # noqa: E402
from lightning_mem1.data.task_data import TaskDataModule  # noqa: E402
from lightning_mem1.data.webshop import WebShopData  # noqa: E402
from lightning_mem1.evaluation.comparison.settings import Comparison  # noqa: E402
from lightning_mem1.training.module import Mem1Module  # noqa: E402
from lightning_mem1.training.trainer import TRAINER_DEFAULTS  # noqa: E402
from lightning_mem1.warmstart.settings import Stage, WarmStart  # noqa: E402

PAGE = Path(__file__).parent / "reference" / "settings.md"

BEGINNING = """\
# Settings

After this page you can find any setting, its type, its default, its unit and what it does.

Every setting is a key of the YAML and an option of the command line: `model: {lr: 1e-4}` is `--model.lr 1e-4`.
`mem1 fit CONFIG --print_config` shows the values of a config, `mem1 fit --help` the settings that people change.
`null` in YAML is `None` in Python. An empty unit means a plain number, a word or a switch.

This page is made from the code by `python docs/settings.py`.
"""

UNITS = (  # a part of a dotted name: what its number counts; the first that is found
    (r"_s$|seconds$", "s"),
    (r"temperature|coef$|weight|penalty|cap$|clip", ""),
    (r"tokens$|max_positions", "tokens"),
    (r"\.lengths?$|\.part$", "tokens"),
    (r"chars$", "characters"),
    (r"^warmstart.*steps|save_every|every_n_steps", "steps"),
    (r"steps$|staleness$", "rl_steps"),
    (r"turns$|turns_per_task$|window$|num_slots$", "turns"),
    (r"episodes$|trajectories$|group_size$|traces_per_step$", "episodes"),
    (r"passages$|top_k$", "passages"),
    (r"products$|results_per_page$", "products"),
    (r"num_pages$", "pages"),
    (r"tasks|val_batch_size$", "tasks"),
    (r"objectives$", "questions"),
)


@dataclass(frozen=True)
class Setting:
    """One row: its dotted name, and what the code says of it."""

    name: str
    type: str
    default: str
    unit: str
    meaning: str


def page() -> str:
    """The whole page."""
    parts = [BEGINNING]
    for heading, about, prefix, kind in sections():
        parts.append(f"## {heading}\n\n{about}\n\n{table(settings(kind, prefix))}")
    parts.insert(2, memory_modes())  # behind the model's own
    parts.append(f"## `trainer`\n\n{trainer()}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def sections() -> Iterator[tuple[str, str, str, type]]:
    """Heading, a line about it, what its keys begin with, and the class that reads them."""
    yield "`model`", "The policy and how it learns.", "model", Mem1Module
    yield "`data`", "How tasks are fed, of any task source.", "data", TaskDataModule
    yield "`data`, shop", "`class_path: WebShopData`; the settings above too.", "data", WebShopData
    yield "`data`, questions", "`class_path: QAData`; the settings above too.", "data", QAData
    yield "`data`, long documents", "`class_path: ReadingData`; the settings above too.", "data", ReadingData
    yield "`data`, agents", "`class_path: AgentData`; the settings above too.", "data", AgentData
    yield "`compare`", "Of `mem1 compare`: memory modes trained and measured alike.", "compare", Comparison
    yield "`warmstart`", "Of `mem1 warmstart`: cloning before RL.", "warmstart", WarmStart
    yield "`warmstart.stages`", "One item of the curriculum.", "warmstart.stages[]", Stage
    for kind in callbacks.DEFAULTS:
        if len(inspect.signature(kind.__init__).parameters) > 1 and list(settings(kind, "")):
            about = f"`trainer.callbacks`, `class_path: lightning_mem1.callbacks.{kind.__name__}`."
            yield f"`{kind.__name__}`", about, "init_args", kind


def settings(kind: type, prefix: str) -> Iterator[Setting]:
    """The settings of a class, groups taken apart."""
    described = meanings(kind)
    hints = get_type_hints(kind if is_dataclass(kind) else kind.__init__)  # type: ignore[misc]
    for name, default in defaults(kind).items():
        group = group_of(hints[name])
        dotted = f"{prefix}.{name}" if prefix else name
        if default is None or not is_dataclass(default):
            kind_of_value, counted = type_name(hints[name]), unit(dotted, hints[name])
            yield Setting(dotted, kind_of_value, value(default), counted, described[name])
        if group is not None and (default is None or is_dataclass(default)):
            yield from settings(group, dotted)


def meanings(kind: type) -> dict[str, str]:
    """What the docstring of a class, or of its `__init__`, says of each argument."""
    found = {}
    for text in (inspect.getdoc(kind.__init__), inspect.getdoc(kind)):  # type: ignore[misc]
        params = parse(text or "").params
        found.update({each.arg_name: " ".join((each.description or "").split()) for each in params})
    return found


def defaults(kind: type) -> dict[str, Any]:
    """Names and defaults; MISSING where a value has to be given."""
    if is_dataclass(kind):
        made = {each.name: each.default_factory for each in fields(kind) if each.default_factory is not MISSING}
        return {
            each.name: made[each.name]() if each.name in made else each.default for each in fields(kind) if each.init
        }
    parameters = inspect.signature(kind).parameters.values()
    named = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    return {each.name: MISSING if each.default is each.empty else each.default for each in named}


def group_of(hint: Any) -> type | None:
    """The group of settings that a type stands for, also where it may be null."""
    kinds = [each for each in (hint, *get_args(hint)) if isinstance(each, type) and is_dataclass(each)]
    return kinds[0] if kinds and get_origin(hint) not in (list, dict) else None


def type_name(hint: Any) -> str:
    """A type as a YAML has it."""
    if hint is type(None):
        return "null"
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(f"`{each}`" for each in get_args(hint))
    if get_origin(hint) in (list, tuple):
        return f"list of {type_name(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        return "map"
    if get_origin(hint) is not None:
        return " or ".join(dict.fromkeys(type_name(each) for each in get_args(hint)))
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}.get(hint, "a class")


def unit(name: str, hint: Any) -> str:
    """What a number counts, from its name; nothing where it is no number."""
    numbers = {int, float} & {hint, *get_args(hint)} or any(int in get_args(each) for each in (hint, *get_args(hint)))
    if not numbers:
        return ""
    return next((unit for pattern, unit in UNITS if re.search(pattern, name)), "")


def value(default: Any) -> str:
    """A default as a YAML has it."""
    if default is MISSING:
        return "required"
    if default is None or isinstance(default, bool):
        return "`null`" if default is None else f"`{str(default).lower()}`"
    if is_dataclass(default) and not isinstance(default, type):
        return "see below"
    if isinstance(default, list) and default and is_dataclass(default[0]):
        return f"{len(default)} of them"
    return f"`{default}`" if default != "" else "empty"


def table(rows: Iterator[Setting]) -> str:
    """The rows as Markdown; a bar within a cell is escaped."""
    lines = ["| setting | type | default | unit | meaning |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        cells = (f"`{row.name}`", row.type, row.default, row.unit, row.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells).replace("  ", " ") + " |")
    return "\n".join(lines)


def memory_modes() -> str:
    """The settings that memory modes have of their own."""
    text = "A memory mode with settings is a group: `memory: {mode: window, window: 3}`, or `--model.memory.window 3`."
    with_settings = {word: mode for word, mode in MODES.items() if defaults(mode)}
    parts = [f"`mode: {word}`:\n\n{table(settings(mode, 'model.memory'))}" for word, mode in with_settings.items()]
    return "\n\n".join(["## `model.memory`", text, *parts])


def trainer() -> str:
    """What is set for `lightning.Trainer`."""
    rows = "\n".join(f"| `trainer.{name}` | {value(default)} |" for name, default in TRAINER_DEFAULTS.items())
    return (
        f"The arguments of Lightning's `Trainer`, with these defaults:\n\n| setting | default |\n| --- | --- |\n{rows}"
    )


if __name__ == "__main__":
    PAGE.write_text(page())
