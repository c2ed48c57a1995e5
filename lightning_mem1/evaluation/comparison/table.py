"""The table of a comparison: what is in the evaluations so far, by memory mode and value."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_mem1.context.memory import MemoryMode
from lightning_mem1.evaluation.arms import Arm, Result, results
from lightning_mem1.evaluation.bootstrap import Interval
from lightning_mem1.evaluation.comparison.settings import OBJECTIVES, Comparison
from lightning_mem1.evaluation.comparison.stage_ledger import Cost, StageLedger
from lightning_mem1.evaluation.comparison.stages import SHARED, Stage, evaluations, stages
from lightning_mem1.evaluation.ledger import LINES
from lightning_mem1.evaluation.measures import MEASURES, Measure

SHOWN = ("em_mean", "f1_mean", "reward", "success", "peak_tokens", "dependency", "turns", "seconds")
KINDS = ("warmstart", "fit", "evaluate")


@dataclass(frozen=True)
class Row:
    """One memory mode at one value of what is varied.

    Attributes:
        mode: Name of the memory mode.
        value: Objectives per task, tokens of a document, ...
        seeds: The seeds that have been evaluated.
        result: Measures with intervals over tasks, and each seed's means.
    """

    mode: str
    value: int
    seeds: tuple[int, ...]
    result: Result


def rows(settings: Comparison, ledger: StageLedger) -> list[Row]:
    """The rows that there is at least one finished evaluation for, by value and then by memory mode."""
    found = [row for mode in settings.modes for row in _of_mode(settings, ledger, mode)]
    return sorted(found, key=lambda row: settings.evaluate.values.index(row.value))


def _of_mode(settings: Comparison, ledger: StageLedger, mode: MemoryMode) -> list[Row]:
    done: dict[tuple[int, ...], dict[int, Path]] = {}
    for seed in settings.seeds:
        for values, stage in evaluations(settings, mode, seed):
            if ledger.done(stage) and stage.product.is_file():
                done.setdefault(tuple(values), {})[seed] = stage.output
    return [row for values, folders in done.items() for row in _played(settings, mode, values, folders)]


def _played(settings: Comparison, mode: MemoryMode, values: Sequence[int], folders: Mapping[int, Path]) -> list[Row]:
    names = _measured(list(folders.values()))
    found = results(Arm(mode.name, tuple(folders.values()), mode.spelled), names)
    if settings.evaluate.key == OBJECTIVES:
        return [Row(mode.name, each.row.objectives, tuple(folders), each) for each in found]
    return [
        Row(mode.name, values[0], tuple(folders), replace(each, row=replace(each.row, objectives=values[0])))
        for each in found
    ]


def _measured(folders: Sequence[Path]) -> list[str]:
    """The measures that every record has, in the order of `MEASURES`."""
    lines = [line for folder in folders for line in (folder / LINES).read_text(encoding="utf-8").splitlines()]
    shared = set.intersection(*(set(json.loads(line)["measures"]) for line in lines)) if lines else set()
    return [measure.name for measure in MEASURES if measure.name in shared]


def shown(found: Sequence[Row]) -> list[Measure]:
    """The measures of the table on screen and page."""
    known = {name for row in found for name in row.result.row.measures}
    chosen = [measure for measure in MEASURES if measure.name in known and measure.name in SHOWN]
    scored = any(measure.name == "em_mean" for measure in chosen)
    return [measure for measure in chosen if not (scored and measure.name in ("reward", "success"))]


def cells(found: Sequence[Row], key: str) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the table: a line for each row, each measure with its interval, then each seed's own mean."""
    measures = shown(found)
    header = [_label(key), "memory", *(measure.label for measure in measures), "stopped early", "each seed"]
    return header, [_line(row, measures) for row in found]


def _line(row: Row, measures: Sequence[Measure]) -> list[str]:
    told, first = row.result.row, measures[0] if measures else None
    early = told.num_trajectories - told.stops.get("done", 0)
    each = row.result.by_seed[first.name] if first else []
    seeds = ", ".join(f"{mean / first.unit:.{first.digits}f}" for mean in each) if first else ""
    numbers = [_interval(told.measures.get(measure.name), measure) for measure in measures]
    return [f"{row.value:,}", row.mode, *numbers, f"{early} of {told.num_trajectories}", seeds]


def _interval(interval: Interval | None, measure: Measure) -> str:
    if interval is None:
        return "-"
    mean, low, high = (f"{number / measure.unit:,.{measure.digits}f}" for number in interval)
    return f"{mean} [{low}, {high}]"


def _label(key: str) -> str:
    return key.rsplit(".", 1)[-1]


def cost_cells(settings: Comparison, ledger: StageLedger) -> tuple[list[str], list[list[str]]]:
    """Header and lines of what each memory mode took: CPU hours and tokens by kind of command, over its seeds."""
    header = [
        "memory",
        "warm start, CPU h",
        "tokens",
        "training, CPU h",
        "tokens",
        "evaluation, CPU h",
        "wall clock, h",
    ]
    header += ["attempts that did not finish"]
    spent = [(stage, cost) for stage in stages(settings) if (cost := ledger.done(stage))]
    names = [SHARED, *(mode.name for mode in settings.modes)]
    return header, [_spent(name, spent) for name in names if any(stage.mode == name for stage, _ in spent)]


def _spent(mode: str, spent: Sequence[tuple[Stage, Cost]]) -> list[str]:
    mine = {kind: [cost for stage, cost in spent if (stage.mode, stage.kind) == (mode, kind)] for kind in KINDS}
    hours = [f"{sum(cost.cpu_seconds for cost in mine[kind]) / 3600:.2f}" for kind in KINDS]
    tokens = [f"{sum(cost.tokens for cost in mine[kind]):,}" for kind in KINDS]
    every = [cost for costs in mine.values() for cost in costs]
    clock = f"{sum(cost.seconds for cost in every) / 3600:.2f}"
    return [mode, hours[0], tokens[0], hours[1], tokens[1], hours[2], clock, str(sum(c.attempts - 1 for c in every))]


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    >>> markdown(["a", "b"], [["1", "2|3"]])
    '| a | b |\\n| --- | --- |\\n| 1 | 2\\\\|3 |'
    """
    every = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in every)


def as_csv(found: Sequence[Row], key: str) -> str:
    """A line for each row: every measure with ``_low`` and ``_high``, and ``_seeds``, their own means."""
    names = [m.name for m in MEASURES if any(m.name in row.result.row.measures for row in found)]
    header = [_label(key), "memory", "seeds", "num_trajectories", "stopped_early"]
    header += [f"{name}{end}" for name in names for end in ("", "_low", "_high", "_seeds")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in found:
        told = row.result.row
        line = [row.value, row.mode, " ".join(map(str, row.seeds)), told.num_trajectories]
        line += [told.num_trajectories - told.stops.get("done", 0)]
        for name in names:
            each = " ".join(map(repr, row.result.by_seed.get(name, ())))
            line += [*(told.measures.get(name) or ("", "", "")), each]
        writer.writerow(line)
    return text.getvalue()
