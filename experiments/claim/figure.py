"""Draws docs/claim.png from results.csv: right answers, peak tokens and dependency by the number of questions.

    python experiments/claim/figure.py

``results.csv`` holds the numbers of log.md: means over three seeds, 95% intervals over 40 test tasks. At 32 questions
`mem1` and `full` were played from their first start alone: these points are hollow, and without an interval where none
was kept.
"""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

HERE = Path(__file__).parent
PICTURE = HERE.parents[1] / "docs" / "claim.png"
COLORS = {"mem1": "#2f6fdf", "full": "#d1495b", "summary": "#e3a008", "react": "#5a8f5a"}
PANELS = (
    ("em", "em_low", "em_high", "right answers"),
    ("peak_tokens", "peak_low", "peak_high", "peak tokens"),
    ("dependency", "dependency_low", "dependency_high", "dependency, million pairs"),
)
Row = dict[str, str]


def rows() -> list[Row]:
    """The lines of results.csv."""
    with (HERE / "results.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def draw(axes: Axes, mode: str, points: list[Row], panel: tuple[str, str, str, str]) -> None:
    """One mode in one panel: its line, intervals, and hollow points of another start."""
    value, low, high, _ = panel
    starts = {row["start"] for row in points}
    usual = min(starts) if len(starts) == 1 else max(starts)
    own = [row for row in points if row["start"] == usual]
    axes.plot(*series(own, value), color=COLORS[mode], marker="o", markersize=4, label=mode)
    axes.plot(*series(points[len(own) - 1 :], value), color=COLORS[mode], linestyle=":")
    for row in points:
        if row[low]:
            axes.plot([int(row["questions"])] * 2, [float(row[low]), float(row[high])], color=COLORS[mode], alpha=0.5)
        if row not in own:
            axes.plot(*series([row], value), color=COLORS[mode], marker="o", markersize=6, markerfacecolor="white")


def series(points: list[Row], value: str) -> tuple[list[int], list[float]]:
    """Questions, and the values there."""
    return [int(row["questions"]) for row in points], [float(row[value]) for row in points]


def main() -> None:
    """Draw."""
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for axes, panel in zip(panels, PANELS, strict=True):
        for mode in COLORS:
            draw(axes, mode, [row for row in rows() if row["mode"] == mode], panel)
        axes.set(xscale="log", xlabel="questions in a task", title=panel[3])
        axes.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
        axes.grid(alpha=0.3)
        if panel[0] != "em":
            axes.set_yscale("log")
        if panel[0] == "peak_tokens":
            axes.set_yticks([200, 500, 1000, 2000, 5000], ["200", "500", "1,000", "2,000", "5,000"])
        axes.minorticks_off()
    panels[0].legend()
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
