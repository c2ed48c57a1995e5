"""One way of training over its seeds: what several evaluations of the same tasks say together.

A number is first the mean over the seeds for each task, then over the tasks; its interval covers the choice of tasks
(95% percentile bootstrap over tasks, each with all its seeds). The seeds' own means are next to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from lightning_mem1.evaluation.bootstrap import bootstrap
from lightning_mem1.evaluation.ledger import LINES
from lightning_mem1.evaluation.tables import Row


@dataclass(frozen=True)
class Arm:
    """A way of training and the memory mode it is played in.

    Attributes:
        name: ``rl/mem1``.
        folders: The evaluations of its seeds.
        mode: Memory mode as records spell it, see `MemoryMode.spelled`; those that name it without its settings too.
    """

    name: str
    folders: tuple[Path, ...]
    mode: str


@dataclass(frozen=True)
class Result:
    """An arm at one number of objectives: intervals by measure, and each seed's means."""

    row: Row
    by_seed: Mapping[str, Sequence[float]]


def results(arm: Arm, names: Sequence[str]) -> list[Result]:
    """The results of an arm at every number of objectives that all its seeds have played; none when none is there.

    Args:
        arm: The arm.
        names: The measures; each record has to have them.
    """
    played = [_read(folder, arm.mode) for folder in arm.folders if (folder / LINES).exists()]
    numbers = set.intersection(*(set(each) for each in played)) if played else set()
    return [_result(arm.name, k, [each[k] for each in played], names) for k in sorted(numbers)]


def _result(name: str, k: int, seeds: Sequence[Mapping[int, Any]], names: Sequence[str]) -> Result:
    tasks = sorted(set.intersection(*(set(seed) for seed in seeds)))
    columns = {m: [fmean(seed[task]["measures"][m] for seed in seeds) for task in tasks] for m in names}
    ends = [seed[task]["stop_reason"] for seed in seeds for task in tasks]
    stops = {reason: ends.count(reason) for reason in sorted(set(ends))}
    row = Row(name, k, len(ends), 0, stops, bootstrap(columns))
    return Result(row, {m: [fmean(seed[task]["measures"][m] for task in tasks) for seed in seeds] for m in names})


def _read(folder: Path, mode: str) -> dict[int, dict[int, Any]]:
    """Objectives -> task -> what was measured; a line that a kill cut short is left out."""
    found: dict[int, dict[int, Any]] = {}
    for line in (folder / LINES).read_bytes().split(b"\n")[:-1]:
        record = json.loads(line)
        if record["memory"] in (mode, mode.partition(" ")[0]):
            found.setdefault(record["objectives"], {})[record["index"]] = record
    return found
