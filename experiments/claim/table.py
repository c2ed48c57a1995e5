"""What the evaluations of `claim.py` say together: ratios between memory modes, tables; rows are those of `arms`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_mem1.evaluation.arms import Arm as Arm
from lightning_mem1.evaluation.arms import Result as Result
from lightning_mem1.evaluation.arms import results as results
from lightning_mem1.evaluation.bootstrap import Interval

QA = ("em", "em_mean", "f1", "f1_mean", "peak_tokens", "dependency", "turns", "seconds")
SHOP = ("reward", "success", "peak_tokens", "dependency", "turns", "seconds")
DIGITS = {"peak_tokens": 0, "turns": 1, "seconds": 1}
CLAIM = {"em": 3.5, "peak_tokens": 1 / 3.7, "dependency": 1 / 5}  # mem1 over full, as the paper has it at 16 objectives
COMPARED = ("reward", "success", *CLAIM)


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
