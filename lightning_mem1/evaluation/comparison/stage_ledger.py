"""What of a comparison is done: a file for each finished command, written in one piece."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lightning_mem1.evaluation.comparison.stages import Stage
from lightning_mem1.io.atomic_files import write_atomic

FOLDER = "stages"
HERE = "{output}"  # in the commands that are written down


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        seconds: Wall clock of the attempt that finished it.
        cpu_seconds: CPU time of that attempt.
        attempts: How often it was begun; what earlier attempts took is not known.
        tokens: Tokens that it was trained on, or sampled in training; 0 for an evaluation.
    """

    seconds: float
    cpu_seconds: float
    attempts: int = 1
    tokens: int = 0


class StageLedger:
    """The finished commands in a folder, which may be moved.

    Args:
        folder: The output folder of a comparison.
    """

    def __init__(self, folder: Path) -> None:
        self.output, self.folder = folder, folder / FOLDER

    def due(self, every: Sequence[Stage]) -> list[Stage]:
        """The stages that are to be run: those that are not finished, and finished ones that they need and are gone.

        A folder of which only the stages and the records of evaluations were kept repeats nothing for a finished mode,
        and of what is shared only what a missing mode needs.

        Args:
            every: The stages of the comparison, in their order.
        """
        found: list[Stage] = []
        needed: set[str] = set()
        for stage in reversed(every):
            finished = self.done(stage) is not None
            read = stage.kind == "evaluate" or stage.name in needed
            if not finished or (read and not stage.product.is_file()):
                found.append(stage)
                needed.update(stage.needs)
        return found[::-1]

    def done(self, stage: Stage) -> Cost | None:
        """What a finished command took, None when it is not finished.

        Raises:
            ValueError: the folder holds the same stage of another command, or a file that nobody can read.
        """
        path = self._path(stage, "json")
        if not path.is_file():
            return None
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            command, cost = self._placeless(told["command"]), Cost(**told["cost"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"unreadable '{path}': expected a stage that this package wrote; remove it to run the stage again"
            ) from error
        if command != self._placeless(stage.command):
            known, given = _first_difference(command, self._placeless(stage.command))
            raise ValueError(
                f"'{path}' was run with other settings: expected {known}, got {given}; set --output to another folder, "
                "or take the same settings"
            )
        return cost

    def begun(self, stage: Stage) -> int:
        """Count an attempt; returns which one it is, from 1."""
        path = self._path(stage, "attempts")
        before = path.read_text().strip() if path.is_file() else ""
        number = 1 + (int(before) if before.isdecimal() else 0)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, f"{number}\n".encode())
        return number

    def finish(self, stage: Stage, cost: Cost) -> None:
        """Write down that a command is finished."""
        told = {"command": self._placeless(stage.command), "cost": asdict(cost)}
        write_atomic(self._path(stage, "json"), (json.dumps(told, indent=1) + "\n").encode())

    def log(self, stage: Stage) -> Path:
        """The file of what a command prints."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self._path(stage, "log")

    def _placeless(self, command: Sequence[str]) -> tuple[str, ...]:
        """A command without the place of the folder."""
        here = re.compile(rf'(?<![^="]){re.escape(str(self.output))}/')
        return tuple(here.sub(f"{HERE}/", part) for part in command)

    def _path(self, stage: Stage, ending: str) -> Path:
        return self.folder / f"{stage.name.replace('/', '.')}.{ending}"


def _first_difference(known: tuple[str, ...], given: tuple[str, ...]) -> tuple[str, str]:
    """The first arguments in which two commands differ, ``nothing`` where one has no more."""
    for place in range(max(len(known), len(given))):
        pair = tuple(each[place] if place < len(each) else "nothing" for each in (known, given))
        if pair[0] != pair[1]:
            return pair  # type: ignore[return-value]
    return "nothing", "nothing"
