"""Pictures: numbers in, a matplotlib figure out; nothing here plays, measures or reads a file.

Figures are made without pyplot, so no window system is asked for and no state is shared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_mem1.evaluation.tables import Row
from lightning_mem1.io.disk_room import room_for

COLORS = ("#2457c5", "#c2352b", "#1f8a4c", "#b06f13", "#7a4fb5", "#4a8f9c")  # distinct in print and by most eyes
BY_OBJECTIVES = {"peak_tokens": "peak tokens", "dependency": "dependency, pairs of tokens", "reward": "reward"}
BY_TURN = {"context_tokens": "context, tokens", "internal_state_tokens": "internal state, tokens"}
CURVES = {"reward": "reward", "success": "success"}
RUNS = {"rollout/reward": "reward, training, sampled", "val/reward": "reward, validation, greedy"}
Point = Mapping[str, float]


def curve(points: Sequence[Point]) -> Figure:
    """Reward and success by rl_step: of training (sampled), of validation (greedy), and the baselines.

    Args:
        points: Metrics by name with their ``rl_step``, as a run logs them: ``rollout/reward``, ``val/reward``,
            ``val/baseline_<name>`` (the last one counts) and so on. A name that a point lacks has no value there.
    """
    figure, panels = _panels(len(CURVES))
    for axes, (name, label) in zip(panels, CURVES.items(), strict=True):
        _by_rl_step(axes, points, f"rollout/{name}", "training, sampled", COLORS[3])
        _by_rl_step(axes, points, f"val/{name}", "validation, greedy", COLORS[0])
        if name == "reward":
            _baselines(axes, points)
        _finish(axes, "rl_step", label)
    return figure


def runs(points: Mapping[str, Sequence[Point]], names: Mapping[str, str] = RUNS) -> Figure:
    """Metrics by rl_step, a line per run; a panel each.

    Args:
        points: Name of a run -> its metrics by name with their ``rl_step``, see `curve`.
        names: Metric -> what its axis says.
    """
    figure, panels = _panels(len(names))
    for axes, (name, label) in zip(panels, names.items(), strict=True):
        for color, (run, mine) in zip(cycle(COLORS), points.items(), strict=False):
            _by_rl_step(axes, mine, name, run, color)
        _finish(axes, "rl_step", label)
    return figure


def by_objectives(
    rows: Sequence[Row], names: Sequence[str] = tuple(BY_OBJECTIVES), varied: str = "objectives"
) -> Figure:
    """Measures against the number of objectives, a line per memory mode, bars the 95% intervals; a panel each.

    Args:
        rows: What was measured; `objectives` of a row is its place on the axis.
        names: The measures.
        varied: What the axis says where something else than the objectives is varied; then it is logarithmic.
    """
    figure, panels = _panels(len(names))
    for axes, name in zip(panels, names, strict=True):
        for color, (mode, mine) in zip(cycle(COLORS), _by_memory(rows, name), strict=False):
            numbers = [row.objectives for row in mine]
            found = [row.measures[name] for row in mine]
            ends = [[each.mean - each.low for each in found], [each.high - each.mean for each in found]]
            means = [each.mean for each in found]
            axes.errorbar(numbers, means, ends, label=mode, color=color, marker="o", capsize=3)
        if varied != "objectives":
            axes.set_xscale("log", base=2)
        ticks = sorted({row.objectives for row in rows})
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        _finish(axes, varied, BY_OBJECTIVES.get(name, name), integers=False)
    return figure


def by_turn(rows: Sequence[Row], names: Sequence[str] = tuple(BY_TURN)) -> Figure:
    """What grows over an episode and what stays: a line per row, a panel per number; turns are counted from 0."""
    figure, panels = _panels(len(names))
    several = len({row.objectives for row in rows}) > 1
    modes = list(dict.fromkeys(row.memory for row in rows))
    styles = ("-", "--", ":", "-.")
    lengths = sorted({row.objectives for row in rows})
    for axes, name in zip(panels, names, strict=True):
        for row in rows:
            if name not in row.by_turn:
                continue
            label = f"{row.memory}, {row.objectives}" if several else row.memory
            color = COLORS[modes.index(row.memory) % len(COLORS)]
            style = styles[lengths.index(row.objectives) % len(styles)]
            axes.plot(range(len(row.by_turn[name])), row.by_turn[name], label=label, color=color, linestyle=style)
        _finish(axes, "turn", BY_TURN.get(name, name), legend=False)
    title = "memory mode, objectives" if several else "memory mode"
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside right upper", title=title, frameon=False, fontsize="small")
    return figure


def advantages(tokens: Sequence[float], lengths: Sequence[int], is_state: Sequence[bool], title: str = "") -> Figure:
    """The advantage of each action token of one trajectory; turns are parted by lines, internal states shaded.

    Args:
        tokens: (T,) advantages, turn by turn.
        lengths: Action tokens of each turn; they sum to T.
        is_state: (T,) True on the tokens of an internal state.
        title: Of the picture.

    Raises:
        ValueError: the three do not align.
    """
    if not len(tokens) == sum(lengths) == len(is_state):
        raise ValueError(
            f"advantages must align with turns and states: expected {sum(lengths)} tokens, got {len(tokens)} "
            f"advantages and {len(is_state)} states"
        )
    figure, (axes,) = _panels(1, width=9.0)
    axes.step(range(len(tokens)), tokens, where="mid", color=COLORS[0], label="advantage")
    top = max([abs(n) for n in tokens if math.isfinite(n)] or [0.0]) or 1.0
    shading: dict[str, Any] = {"step": "mid", "alpha": 0.15, "color": COLORS[3], "label": "internal state"}
    axes.fill_between(range(len(tokens)), -top, top, where=list(is_state), **shading)
    start = 0
    for length in lengths:
        axes.axvline(start - 0.5, color="0.8", linewidth=0.8, zorder=0)
        start += length
    axes.set_title(title, fontsize="medium")
    _finish(axes, "action token", "advantage", from_zero=False)
    return figure


def of_rows(rows: Sequence[Row]) -> dict[str, Figure]:
    """The pictures of an evaluation by file name; one that has nothing to show is left out."""
    names = [name for name in BY_OBJECTIVES if any(name in row.measures for row in rows)]
    turns = [name for name in BY_TURN if any(name in row.by_turn for row in rows)]
    pictures = {"objectives": by_objectives(rows, names)} if names else {}
    return {**pictures, **({"turns": by_turn(rows, turns)} if turns else {})}


def save(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write each figure as ``<name>.png``; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        with room_for(paths[-1]):
            figure.savefig(paths[-1], dpi=130, metadata={"Software": None})  # the same numbers make the same bytes
    return paths


def _panels(count: int, width: float = 4.6, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """A figure of panels side by side."""
    figure = Figure(figsize=(width * count, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _by_rl_step(axes: Axes, points: Sequence[Point], name: str, label: str, color: str) -> None:
    """The line of a metric over the points that have it; the few points of validation are marked."""
    known = [(point["rl_step"], point[name]) for point in points if name in point]
    if known:
        marker = "o" if name.startswith("val/") else ""
        axes.plot(*zip(*known, strict=True), label=label, color=color, marker=marker)


def _finish(axes: Axes, x: str, y: str, from_zero: bool = True, legend: bool = True, integers: bool = True) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if integers:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if from_zero and axes.dataLim.y0 >= 0:  # a flat line shall look flat
        axes.set_ylim(0, None if axes.dataLim.y1 > 0 else 1)
    axes.spines[["top", "right"]].set_visible(False)
    if legend and axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize="small")


def _baselines(axes: Axes, points: Sequence[Point]) -> None:
    """A dotted line for each score, with the names of all baselines that have it."""
    last: dict[str, float] = {}
    for point in points:
        last |= {key: value for key, value in point.items() if key.startswith("val/baseline_")}
    names: dict[float, list[str]] = {}
    for key, value in sorted(last.items()):
        names.setdefault(round(value, 3), []).append(key.removeprefix("val/baseline_"))
    for value, those in names.items():
        axes.axhline(value, color="0.55", linestyle=":", linewidth=1)
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
        axes.annotate(", ".join(those), (1, value), fontsize="small", **place)


def _by_memory(rows: Sequence[Row], name: str) -> list[tuple[str, list[Row]]]:
    """Rows that have a measure by memory mode, by rising numbers of objectives."""
    found: dict[str, list[Row]] = {row.memory: [] for row in rows}
    for row in sorted(rows, key=lambda row: row.objectives):
        if name in row.measures:
            found[row.memory].append(row)
    return [(mode, mine) for mode, mine in found.items() if mine]
