"""The settings of `mem1 compare`: which memory modes, and how each of them is trained and evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lightning_mem1.checks import SEED, Range, Ranges, check_numbers
from lightning_mem1.context.memory import MemoryMode
from lightning_mem1.context.modes import MODES
from lightning_mem1.context.settings import memory_mode

ALL = "all"
ELSEWHERE = ("recorded",)  # what another's agent sent; played here it is `full`
OBJECTIVES = "objectives"
KEY = "compare.memory"


@dataclass
class Command:
    """A command with a config.

    Args:
        config: The name of an experiment, or a YAML file.
        set: Settings that differ from the config's, by their dotted keys.
    """

    config: str
    set: dict[str, Any] = field(default_factory=dict)


@dataclass
class Cloning(Command):
    """A warm start; it continues the one before it.

    Args:
        config: As in `Command`.
        set: As in `Command`.
        shared: Played once, in the memory mode of its config, for all modes.
    """

    shared: bool = False


@dataclass
class Measuring:
    """How each trained policy is evaluated, with the config and the settings of its training.

    Args:
        tasks: Tasks at each value.
        key: What is varied: ``objectives``, or a dotted setting such as ``data.length``.
        values: Its values.
        set: Further settings, by their dotted keys.
        page: Trajectories of each evaluation on its page; 0 for no page.
    """

    tasks: int = 100
    key: str = OBJECTIVES
    values: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16])
    set: dict[str, Any] = field(default_factory=dict)
    page: int = 0
    ranges: ClassVar[Ranges] = {"tasks": Range(1), "values": Range(1)}

    def __post_init__(self) -> None:
        check_numbers("compare.evaluate", Measuring, vars(self))
        if not self.values or len(set(self.values)) != len(self.values):
            raise ValueError(f"compare.evaluate.values must be different numbers, at least one, got {self.values}")


@dataclass
class Comparison:
    """A comparison of memory modes.

    Args:
        output: Folder of everything that comes out; the same folder resumes.
        fit: The training; its config names the policy where there is no warm start.
        evaluate: The evaluation.
        warmstart: The warm starts, in order, each once for a mode; seeds share them.
        memory: The memory modes: words, dotted names, either with settings ({mode: window, window: 3}), or all.
        seeds: Seeds of the training; an evaluation plays the same tasks for all of them.
    """

    output: str
    fit: Command
    evaluate: Measuring = field(default_factory=Measuring)
    warmstart: list[Cloning] = field(default_factory=list)
    memory: list[Any] | str = field(default_factory=lambda: ["mem1", "full"])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    ranges: ClassVar[Ranges] = {"seeds": SEED}

    def __post_init__(self) -> None:
        check_numbers("compare", Comparison, vars(self))
        self.modes = modes(self.memory)
        check_seeds(self.seeds, "compare.seeds")


def modes(given: str | Sequence[Any], key: str = KEY) -> list[MemoryMode]:
    """The memory modes that a setting names.

    Args:
        given: A list of settings of memory modes, ``"mem1,full"``, or ``"all"`` for every one of the package that is
            played here.
        key: What to name in messages.

    Raises:
        ValueError: none, an unknown one, or two of the same name.
    """
    names: Iterable[Any] = (part.strip() for part in given.split(",")) if isinstance(given, str) else given
    listed = [word for word in MODES if word not in ELSEWHERE] if given in (ALL, [ALL]) else list(names)
    found = [memory_mode(name, key) for name in listed]
    words = [mode.name for mode in found]
    if not found or len(set(words)) < len(words):
        raise ValueError(f"{key} must name different memory modes, at least one, got {', '.join(words) or 'none'}")
    return found


def seeds_of(given: str, key: str = "--seeds") -> list[int]:
    """``"0,1,2"`` as its numbers; raises ValueError for what is none."""
    parts = [part.strip() for part in given.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"{key} must be whole numbers from 0, e.g. 0,1,2, got '{given}'")
    return check_seeds([int(part) for part in parts], key)


def check_seeds(seeds: list[int], key: str) -> list[int]:
    """The seeds; raises ValueError where there are none, or one twice."""
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"{key} must be different numbers, at least one, got {seeds}")
    return seeds
