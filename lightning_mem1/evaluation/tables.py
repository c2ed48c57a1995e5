"""Records -> rows -> a table on screen, in JSON and in CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from statistics import fmean
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lightning_mem1.context.tags import printable
from lightning_mem1.evaluation.bootstrap import Interval, bootstrap
from lightning_mem1.evaluation.ledger import Record
from lightning_mem1.evaluation.measures import MEASURES, Measure
from lightning_mem1.evaluation.published import Published
from lightning_mem1.types import StopReason


@dataclass(frozen=True)
class Row:
    """What one memory mode did at one number of objectives.

    Attributes:
        memory: Memory mode.
        objectives: Objectives per task.
        num_trajectories: How many were played; every one counts.
        max_context_tokens: Longest context that there was room for.
        stops: Trajectories by stop reason.
        measures: Means with 95% intervals, by name.
        error: What failed in the first trajectory that its environment ended; empty when none did.
        by_turn: Means by name and turn, over the trajectories that had this turn (as many as ``trajectories`` says).
    """

    memory: str
    objectives: int
    num_trajectories: int
    max_context_tokens: int
    stops: Mapping[str, int]
    measures: Mapping[str, Interval]
    error: str = ""
    by_turn: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Baseline:
    """Mean reward of a scripted agent on the same tasks."""

    name: str
    objectives: int
    reward: float


def row(records: Sequence[Record], max_context_tokens: int) -> Row:
    """Put the records of one memory mode and one number of objectives together.

    Raises:
        ValueError: There are none.
    """
    if not records:
        raise ValueError("a row needs at least 1 trajectory, got 0")
    names = [m.name for m in MEASURES if all(m.name in record.measures for record in records)]
    columns = {name: [record.measures[name] for record in records] for name in names}
    counts = Counter(record.stop_reason for record in records)
    return Row(
        memory=records[0].memory,
        objectives=records[0].objectives,
        num_trajectories=len(records),
        max_context_tokens=max_context_tokens,
        stops={str(reason): counts[str(reason)] for reason in StopReason},
        measures=bootstrap(columns),
        error=next((record.error for record in records if record.error), ""),
        by_turn=_by_turn(records),
    )


def _by_turn(records: Sequence[Record]) -> dict[str, list[float]]:
    """Means of the numbers of each turn; records from before there were any are left out."""
    known = [record.by_turn for record in records if record.by_turn]
    names = list(known[0]) if known else []
    columns = {
        name: [[n for n in turn if n is not None] for turn in zip_longest(*(each[name] for each in known))]
        for name in names
    }
    means = {name: [fmean(numbers) for numbers in turns] for name, turns in columns.items()}
    return {**means, **({"trajectories": [float(len(t)) for t in columns[names[0]]]} if names else {})}


def as_json(
    settings: Mapping[str, Any], rows: Sequence[Row], baselines: Sequence[Baseline], papers: Sequence[Published]
) -> dict[str, Any]:
    """Everything as plain values."""
    return {
        "settings": dict(settings),
        "rows": [
            {
                **{key: value for key, value in vars(each).items() if key != "measures"},
                "measures": {name: interval._asdict() for name, interval in each.measures.items()},
            }
            for each in rows
        ],
        "baselines": [vars(each) for each in baselines],
        "published": [{key: value for key, value in vars(p).items() if value is not None} for p in papers],
    }


def as_csv(rows: Sequence[Row], baselines: Sequence[Baseline]) -> str:
    """One line per row, each measure with its ``_low`` and ``_high``; then the baselines, by their reward."""
    shown = _shown(rows)
    header = ["memory", "objectives", "num_trajectories", "max_context_tokens", *(f"stop_{r}" for r in StopReason)]
    header += [f"{measure.name}{end}" for measure in shown for end in ("", "_low", "_high")]
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    for each in rows:
        numbers = {
            f"{name}{end}": number
            for name, interval in each.measures.items()
            for end, number in zip(("", "_low", "_high"), interval, strict=True)
        }
        writer.writerow(
            {
                **{key: value for key, value in vars(each).items() if key in header},
                **{f"stop_{reason}": count for reason, count in each.stops.items()},
                **numbers,
            }
        )
    for baseline in baselines:
        writer.writerow(
            {"memory": f"baseline {baseline.name}", "objectives": baseline.objectives, "reward": baseline.reward}
        )
    return text.getvalue()


def as_metrics(rows: Iterable[Row], split: str) -> list[tuple[int, dict[str, float]]]:
    """For a logger: number of objectives (its step) and ``<split>/<memory>/<measure>``, ``..._low``, ``..._high``."""
    return [
        (
            each.objectives,
            {
                f"{split}/{each.memory}/{name}{end}": number
                for name, interval in each.measures.items()
                for end, number in zip(("", "_low", "_high"), interval, strict=True)
            }
            | {f"{split}/{each.memory}/stop_{r}": n / each.num_trajectories for r, n in each.stops.items()},
        )
        for each in rows
    ]


def on_screen(rows: Sequence[Row], baselines: Sequence[Baseline], papers: Sequence[Published]) -> list[Table]:
    """A table per number of objectives: measures downwards, memory modes sideways; then the published numbers."""
    horizons = list(dict.fromkeys(each.objectives for each in rows))
    tables = [
        _horizon([r for r in rows if r.objectives == k], [b for b in baselines if b.objectives == k]) for k in horizons
    ]
    return tables + ([_published(papers)] if papers else [])


def remarks(rows: Iterable[Row]) -> list[str]:
    """One line for each row whose trajectories were cut off or failed."""
    lines = []
    for each in rows:
        name = f"{each.memory}, {objectives(each.objectives)}: "
        if cut := each.stops[StopReason.CONTEXT]:
            lines.append(
                f"{name}{cut} of {each.num_trajectories} trajectories outgrew the {each.max_context_tokens} tokens "
                "that the policy has positions for; they count as they stood"
            )
        if failed := each.stops[StopReason.ERROR]:
            lines.append(
                f"{name}environment or engine failed in {failed} of {each.num_trajectories} trajectories, first with "
                f"{printable(each.error)}"
            )
    return lines


def objectives(number: int) -> str:
    """``1 objective``, ``2 objectives``."""
    return f"{number} objective" if number == 1 else f"{number} objectives"


def _horizon(rows: Sequence[Row], baselines: Sequence[Baseline]) -> Table:
    table = Table(title=objectives(rows[0].objectives), box=box.SIMPLE_HEAD, title_style="bold")
    table.add_column("mean [95% interval]")
    for each in rows:
        table.add_column(Text(f"{each.memory}, n={each.num_trajectories}"), justify="right")
    for measure in _shown(rows):
        cells = (each.measures.get(measure.name) for each in rows)
        table.add_row(Text(measure.label), *(Text(_interval(cell, measure)) for cell in cells))
    for reason in (StopReason.MAX_TURNS, StopReason.CONTEXT, StopReason.ERROR):
        table.add_row(Text(f"stopped by {reason.replace('_', ' ')}"), *(Text(str(r.stops[reason])) for r in rows))
    for baseline in baselines:
        table.add_row(Text(f"reward of {baseline.name}"), Text(f"{baseline.reward:.3f}"))
    return table


def _published(papers: Sequence[Published]) -> Table:
    """Published columns under the names of one's own."""
    names = {"objectives", *(key for each in papers for key, value in vars(each).items() if value is not None)}
    shown = [measure for measure in MEASURES if measure.name in names]
    table = Table(
        title="published: other models, data and machines", box=box.SIMPLE_HEAD, title_style="bold", show_lines=False
    )
    for title in ("model", "objectives", *(measure.label for measure in shown), "source"):
        table.add_column(Text(title), justify="left" if title in ("model", "source") else "right")
    for each in papers:
        numbers = [_number(getattr(each, measure.name), measure) for measure in shown]
        table.add_row(*map(Text, (each.model, str(each.objectives), *numbers, each.source)))
    return table


def _shown(rows: Iterable[Row]) -> list[Measure]:
    known = {name for each in rows for name in each.measures}
    return [measure for measure in MEASURES if measure.name in known]


def _interval(interval: Interval | None, measure: Measure) -> str:
    if interval is None:
        return "-"
    mean, low, high = (_number(number, measure) for number in interval)
    return f"{mean} [{low}, {high}]"


def _number(number: float | None, measure: Measure) -> str:
    return "-" if number is None else f"{number / measure.unit:,.{measure.digits}f}"
