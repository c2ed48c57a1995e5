"""What the page of costs shows of the JSON files of benchmarks: the lines of its figures, the rows of its tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BLUE, RED, GREEN, BROWN = "#2457c5", "#c2352b", "#1f8a4c", "#b06f13"  # distinct in print and by most eyes
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One line of a panel: its points, by rising x; without a style its points alone are drawn."""

    label: str
    color: str
    points: Sequence[tuple[float, float]]
    style: str = "-"


@dataclass(frozen=True)
class Panel:
    """What is drawn against what, both axes logarithmic; `ticks` where each value of x has a label of its own."""

    x: str
    y: str
    lines: Sequence[Line]
    ticks: Sequence[int] = field(default_factory=tuple)


def horizon(found: Json) -> tuple[list[Panel], list[list[str]]]:
    """Time and memory of an episode by its turns."""
    rows = found["horizons"]
    turns = [each["turns"] for each in rows]

    def line(mode: str, key: str, scale: float = 1.0, again: bool = False) -> Line:
        points = [(each["turns"], each[mode][key] * scale) for each in rows if key in each.get(mode, {})]
        label = f"{mode}, activations recomputed" if again else mode
        return Line(label, BLUE if mode == "mem1" else RED, points, ":" if again else "-")

    def both(key: str, scale: float = 1.0) -> list[Line]:
        kept = [line(mode, key, scale) for mode in ("mem1", "full")]
        again = key.replace("train", "recomputed")
        return kept + [line(mode, again, scale, True) for mode in ("mem1", "full")] * (again != key)

    panels = [
        Panel("turns", "keys and values, MiB", both("keys_and_values_mib"), turns),
        Panel("turns", "collecting, s", both("collect_ms", 1e-3), turns),
        Panel("turns", "training, s", both("train_ms", 1e-3), turns),
        Panel("turns", "memory of training, MiB", both("train_peak_mib"), turns),
    ]
    keys = [("peak_context_tokens", 1.0), ("keys_and_values_mib", 1.0), ("collect_ms", 1e-3), ("train_ms", 1e-3)]
    keys += [("train_peak_mib", 1.0), ("recomputed_ms", 1e-3), ("recomputed_peak_mib", 1.0)]
    table = [
        columns(
            "turns | longest context, tokens | keys and values, MiB | collecting, s | training, s | "
            "its memory, MiB | recomputed, s | its memory, MiB"
        )
    ]
    for each in rows:
        pairs = [[scaled(each.get(mode, {}).get(key), scale) for mode in ("mem1", "full")] for key, scale in keys]
        table.append([str(each["turns"]), *(" / ".join(pair) for pair in pairs)])
    return panels, table


def group(found: Json) -> tuple[list[Panel], list[list[str]]]:
    """Tokens, time and memory of a rollout and of a training pass by the group size."""
    rows = found["groups"]
    arms = (
        ("rollout", "shared", "rollout, one prompt", GREEN, "-"),
        ("rollout", "apart", "rollout, a prompt each", BROWN, "-"),
        ("training", "tree", "training, tree", BLUE, "-"),
        ("training", "rows", "training, rows", RED, "-"),
    )
    kinds = (("tokens", "tokens through the model", 1), ("ms", "time, s", 1e-3), ("peak_mib", "memory, MiB", 1))
    sizes = [each["group"] for each in rows]
    panels = []
    for key, label, scale in kinds:
        lines = [
            Line(name, color, [(each["group"], each[part][arm][key] * scale) for each in rows], style)
            for part, arm, name, color, style in arms
        ]
        panels.append(Panel("episodes in a group", label, lines, sizes))
    table = [
        ["group", *(f"{name}: tokens" for _, _, name, *_ in arms), *(f"{name}: s, MiB" for _, _, name, *_ in arms)]
    ]
    for each in rows:
        costs = [each[part][arm] for part, arm, *_ in arms]
        times = [f"{scaled(cost['ms'], 1e-3)}, {scaled(cost['peak_mib'])}" for cost in costs]
        table.append([str(each["group"]), *(scaled(cost["tokens"]) for cost in costs), *times])
    return panels, table


def budget(found: Json) -> tuple[list[Panel], list[list[str]]]:
    """Time and memory of an episode by the longest context that a memory mode leaves it."""
    rows = found["budgets"]
    modes = {"compaction": (BLUE, "-"), "window": (BROWN, "-"), "full": (RED, "")}
    kinds = (("collect_ms", "collecting, s", 1e-3), ("train_ms", "training, s", 1e-3))
    panels = []
    for key, label, scale in (*kinds, ("train_peak_mib", "memory of training, MiB", 1)):
        lines = [
            Line(mode, color, [(e["peak_context_tokens"], e[key] * scale) for e in rows if e["mode"] == mode], style)
            for mode, (color, style) in modes.items()
        ]
        panels.append(Panel("longest context, tokens", label, lines))
    table = [
        columns(
            "memory mode | longest context, tokens | keys and values, MiB | trained tokens | collecting, s | "
            "training, s | its memory, MiB"
        )
    ]
    names = {"compaction": "budget", "window": "window"}
    for each in rows:
        limit = f" {names[each['mode']]} {each['limit']:,}" if each["limit"] else ""
        cells = [scaled(each[key]) for key in ("peak_context_tokens", "keys_and_values_mib", "trained_tokens")]
        times = [scaled(each[key], 1e-3) for key in ("collect_ms", "train_ms")]
        table.append([f"`{each['mode']}`{limit}", *cells, *times, scaled(each["train_peak_mib"])])
    return panels, table


def catalogue(found: Json) -> tuple[list[Panel], list[list[str]]]:
    """Building, memory and search of the shop by its products."""
    rows = found["sizes"]

    def line(label: str, color: str, value: Callable[[Json], float]) -> Line:
        return Line(label, color, [(each["open"]["products"], value(each)) for each in rows])

    def build_s(each: Json) -> float:
        return float(each["build"].get("build_cpu_s", each["build"]["build_s"]))

    def share(each: Json) -> float:
        return float(each["shared"]["pss_mib_sum"] / each["shared"]["processes"])

    def median(kind: str) -> Callable[[Json], float]:
        return lambda each: each["search"][kind]["median_ms"]

    search = [
        line(f"by {kind}", color, median(kind))
        for kind, color in (("instruction", RED), ("title", BLUE), ("query", GREEN))
    ]
    memory = [
        line("building", RED, lambda each: each["build"]["peak_rss_mib"]),
        line("one process", BLUE, lambda each: each["search"]["after_all"]["rss_mib"]),
        line("each of eight", GREEN, share),
    ]
    disk = [
        line("files", RED, lambda each: 1024 * each["json_gib"]),
        line("index", BLUE, lambda each: 1024 * each["index_gib"]),
    ]
    panels = [
        Panel("products", "building, s", [line("building", RED, build_s)]),
        Panel("products", "resident memory, MiB", memory),
        Panel("products", "disk, MiB", disk),
        Panel("products", "a search, ms", search),
    ]
    table = [
        columns(
            "products | building, s | its memory, MiB | files, GiB | index, GiB | one process, MiB | "
            "each of eight, MiB | a search by instruction / title / query, ms"
        )
    ]
    for each in rows:
        searches = " / ".join(scaled(each["search"][kind]["median_ms"]) for kind in ("instruction", "title", "query"))
        clock = "" if "build_cpu_s" in each["build"] else " by the clock"
        values = [each["build"]["peak_rss_mib"], each["json_gib"], each["index_gib"]]
        values += [each["search"]["after_all"]["rss_mib"], share(each)]
        products = f"{each['open']['products']:,}"
        table.append([products, f"{scaled(build_s(each))}{clock}", *map(scaled, values), searches])
    return panels, table


def corpus(found: Json) -> tuple[list[Panel], list[list[str]]]:
    """Building, memory and search of a BM25 index by its passages."""
    rows = found["sizes"]

    def line(label: str, color: str, key: str, scale: float = 1.0) -> Line:
        return Line(label, color, [(each["num_passages"], each[key] * scale) for each in rows])

    memory = [
        line("building", RED, "build_peak_gib", 1024),
        line("searching, with mapped pages", BLUE, "search_peak_gib", 1024),
        line("searching, its own", GREEN, "search_private_gib", 1024),
    ]
    panels = [
        Panel("passages", "building, s", [line("building", RED, "build_s")]),
        Panel("passages", "resident memory, MiB", memory),
        Panel("passages", "disk, MiB", [line("index and passages", BLUE, "size_gib", 1024)]),
        Panel("passages", "a search, ms", [line("median", BLUE, "median_query_ms"), line("p95", RED, "p95_query_ms")]),
    ]
    table = [
        columns(
            "passages | building, s | its memory, GiB | disk, GiB | searching: memory, GiB | of its own, GiB | "
            "a search, median / p95, ms"
        )
    ]
    keys = ("build_s", "build_peak_gib", "size_gib", "search_peak_gib", "search_private_gib")
    for each in rows:
        searches = f"{scaled(each['median_query_ms'])} / {scaled(each['p95_query_ms'])}"
        table.append([f"{each['num_passages']:,}", *(scaled(each[key]) for key in keys), searches])
    return panels, table


FIGURES: dict[str, tuple[str, Callable[[Json], tuple[list[Panel], list[list[str]]]]]] = {  # name -> file, reader
    "horizon": ("horizon", horizon),
    "group": ("group_and_budget", group),
    "budget": ("group_and_budget", budget),
    "catalogue": ("webshop_scale", catalogue),
    "corpus": ("retrieval", corpus),
}


def columns(heads: str) -> list[str]:
    """The heads of a table."""
    return heads.split(" | ")


def scaled(number: float | None, scale: float = 1.0) -> str:
    """Three digits, or all of those before the point; a dash for what was not measured.

    >>> [scaled(13394), scaled(1921.0, 1e-3), scaled(0.0398), scaled(None)]
    ['13,394', '1.92', '0.0398', '–']
    """
    if number is None:
        return "–"
    value = number * scale
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")
