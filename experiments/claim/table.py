"""What the evaluations of `claim.py` say together: rows over seeds, ratios between memory modes, tables, pictures.

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

from lightning_mem1.evaluation.bootstrap import Interval, bootstrap
from lightning_mem1.evaluation.ledger import LINES
from lightning_mem1.evaluation.tables import Row

QA = ("em", "em_mean", "f1", "f1_mean", "peak_tokens", "dependency", "turns", "seconds")
SHOP = ("reward", "success", "peak_tokens", "dependency", "turns", "seconds")
DIGITS = {"peak_tokens": 0, "turns": 1, "seconds": 1}
CLAIM = {"em": 3.5, "peak_tokens": 1 / 3.7, "dependency": 1 / 5}  # mem1 over full, as the paper has it at 16 objectives
COMPARED = ("reward", "success", *CLAIM)


@dataclass(frozen=True)
class Arm:
    """A way of training and the memory mode it is played in.

    Attributes:
        name: ``rl/mem1``.
        folders: The evaluations of its seeds.
        mode: Memory mode.
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
    """The results of an arm at every number of objectives that all its seeds have played; none when none is there."""
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
        if record["memory"] == mode:
            found.setdefault(record["objectives"], {})[record["index"]] = record
    return found


def ratios(found: Mapping[str, Sequence[Result]], ours: str, theirs: str) -> list[dict[str, Any]]:
    """One arm over another at each number of objectives: ratio of means, and whether the intervals touch."""
    rows = []
    other = {each.row.objectives: each.row.measures for each in found.get(theirs, [])}
    for result in found.get(ours, []):
        k, mine = result.row.objectives, result.row.measures
        for name in COMPARED:
            if name in mine and k in other:
                yours = other[k][name]
                touch = mine[name].low <= yours.high and yours.low <= mine[name].high
                ratio = mine[name].mean / yours.mean if yours.mean else None
                rows.append({"measure": name, "objectives": k, "ratio": ratio, "intervals_touch": touch})
    return rows


def markdown(found: Mapping[str, Sequence[Result]], names: Sequence[str]) -> list[str]:
    """Markdown: a line per arm and number of objectives."""
    lines = [f"| trained | objectives | {' | '.join(names)} |", f"| --- | --- | {' | '.join('---' for _ in names)} |"]
    for name, each in found.items():
        for result in each:
            cells = [_cell(n, result.row.measures[n]) for n in names]
            lines.append(f"| {name} | {result.row.objectives} | {' | '.join(cells)} |")
    return lines


def _cell(name: str, interval: Interval) -> str:
    unit = 1e6 if name == "dependency" else 1.0
    return "{:,.{d}f} [{:,.{d}f}, {:,.{d}f}]".format(*(n / unit for n in interval), d=DIGITS.get(name, 3))


def ratio_table(rows: Sequence[Mapping[str, Any]], pair: str) -> list[str]:
    """Markdown: ratios by number of objectives, the paper's next to those that it reports (over `full`)."""
    paper = CLAIM if pair.endswith("full") else {}
    lines = [f"| {pair} | objectives | ratio | the paper's at 16 | intervals |", "| --- | --- | --- | --- | --- |"]
    for each in rows:
        told = "no answer right" if each["ratio"] is None else f"{each['ratio']:.3f}"
        apart = "touch" if each["intervals_touch"] else "apart"
        theirs = f"{paper[each['measure']]:.2f}" if each["measure"] in paper else ""
        lines.append(f"| {each['measure']} | {each['objectives']} | {told} | {theirs} | {apart} |")
    return lines


def as_json(found: Mapping[str, Sequence[Result]]) -> list[dict[str, Any]]:
    """Every row as plain values."""
    return [
        {
            "arm": name,
            "objectives": result.row.objectives,
            "num_trajectories": result.row.num_trajectories,
            "stops": dict(result.row.stops),
            "measures": {n: interval._asdict() for n, interval in result.row.measures.items()},
            "seeds": {n: list(means) for n, means in result.by_seed.items()},
        }
        for name, each in found.items()
        for result in each
    ]
