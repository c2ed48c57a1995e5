"""Draws docs/cost/*.svg from the JSON files of benchmarks, and writes the same numbers into the tables of the page.

    python docs/cost_figures.py

Each figure carries its numbers in its description, and each table of docs/reference/cost.md lies between two comments,
so that a test can hold both against the benchmarks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

sys.path.insert(0, str(Path(__file__).parent))

from cost_data import FIGURES, Json, Panel

DOCS = Path(__file__).parent
BENCHMARKS = DOCS.parent / "benchmarks"
PAGE = DOCS / "reference" / "cost.md"
FOLDER = DOCS / "cost"


def read(name: str) -> tuple[Json, list[Panel], list[list[str]]]:
    """What a benchmark's file holds, and what a figure and a table show of it."""
    file, reader = FIGURES[name]
    found = json.loads((BENCHMARKS / f"{file}.json").read_text())
    return found, *reader(found)


def numbers(panels: Sequence[Panel]) -> dict[str, dict[str, list[list[float]]]]:
    """The points of a figure, as its description holds them."""
    return {
        panel.y: {line.label: [[x, round(y, 4)] for x, y in line.points] for line in panel.lines} for panel in panels
    }


def draw(panels: Sequence[Panel]) -> Figure:
    """Panels side by side; the lines of the first one with most of them are named below."""
    figure = Figure(figsize=(3.1 * len(panels), 3.3), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for line in panel.lines:
            if line.points:
                axes.plot(
                    *zip(*line.points, strict=True),
                    label=line.label,
                    color=line.color,
                    linestyle=line.style or "none",
                    marker="o",
                    markersize=4,
                )
        axes.set(xscale="log", yscale="log", xlabel=panel.x, title=panel.y)
        axes.title.set_fontsize("medium")
        if panel.ticks:
            axes.set_xticks(list(panel.ticks), [f"{tick:,}" for tick in panel.ticks], fontsize="small")
        else:
            label(axes.xaxis, axes.get_xlim())
        low, high = axes.get_ylim()
        if high < 10 * low:
            axes.set_ylim(low / 2, high * 2)  # a flat line shall look flat
        label(axes.yaxis, (low, high))
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if len(panel.lines) > 1:
            axes.legend(frameon=False, fontsize="x-small")
    return figure


def label(axis: Axis, ends: tuple[float, float]) -> None:
    """Label 1, 2 and 5 of each power of ten, or where there are many powers these alone."""
    low, high = ends
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(short))


def short(value: float, _: int | None = None) -> str:
    """``10k`` and ``1M`` in place of zeros."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def markdown(table: Sequence[Sequence[str]]) -> str:
    """A table as the page has it."""
    head, *rows = [f"| {' | '.join(row)} |" for row in table]
    return "\n".join([head, f"|{' --- |' * len(table[0])}", *rows])


def surroundings(found: Json) -> str:
    """The machine and its load, as below each table."""
    loads = {each["load_average_5_min"] for each in found.get("sizes", [found])}
    load = f"{min(loads)} to {max(loads)}" if len(loads) > 1 else f"{min(loads)}"
    return f"{found['hardware']}, one thread, load average {load}."


def filled(page: str) -> str:
    """The page with every table, and the machine below it, taken from the benchmarks."""
    for name in FIGURES:
        found, _, table = read(name)
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}{markdown(table)}\n\n{surroundings(found)}\n{end}{rest.partition(end)[2]}"
    return page


def main() -> None:
    """Draw the figures and fill in the page."""
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "cost"})  # small, and the same bytes each time
    FOLDER.mkdir(exist_ok=True)
    for name in FIGURES:
        _, panels, _ = read(name)
        about = {"Date": None, "Creator": None, "Description": json.dumps(numbers(panels))}
        draw(panels).savefig(FOLDER / f"{name}.svg", metadata=about)
    PAGE.write_text(filled(PAGE.read_text()))


if __name__ == "__main__":
    main()
