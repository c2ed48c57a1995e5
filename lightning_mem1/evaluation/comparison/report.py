"""What a comparison leaves behind: a table as Markdown and CSV, a figure, and a page that holds them all."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from lightning_mem1.context.tags import printable
from lightning_mem1.evaluation.comparison import table
from lightning_mem1.evaluation.comparison.settings import Comparison
from lightning_mem1.evaluation.comparison.stage_ledger import StageLedger
from lightning_mem1.evaluation.comparison.stages import stages
from lightning_mem1.evaluation.report.plots import by_objectives
from lightning_mem1.io.atomic_files import write_atomic

NAME = "comparison"
DRAWN = ("em_mean", "reward", "peak_tokens", "dependency")
STYLE = "body{font:15px sans-serif;margin:2em;max-width:75em}table{border-collapse:collapse;margin:1em 0}"
STYLE += "td,th{padding:.25em .7em;border-bottom:1px solid #ccc;text-align:left}img{max-width:100%}"
INTERVALS = (
    "Means over tasks and seeds with 95% bootstrap intervals over tasks; they say nothing about other seeds, whose own "
    "means of the first measure are in the last column. Stopped early: no answer within the turns or the context."
)
COSTS = (
    "CPU hours and tokens of the attempts that finished: tokens of a warm start are trained, contexts included, those "
    "of a training are sampled."
)


def write(settings: Comparison, ledger: StageLedger, title: str, command: str, hardware: str) -> list[Path]:
    """Write what is known so far; returns the files, none before the first evaluation is finished.

    Args:
        settings: The comparison.
        ledger: What is done.
        title: Heading.
        command: The command line that makes it.
        hardware: What it ran on.
    """
    found = table.rows(settings, ledger)
    if not found:
        return []
    numbers, costs = table.cells(found, settings.evaluate.key), table.cost_cells(settings, ledger)
    about = _about(settings, ledger, command, hardware)
    figure = drawn(found, settings.evaluate.key)
    contents = {
        ".md": _markdown(title, about, numbers, costs).encode(),
        ".csv": table.as_csv(found, settings.evaluate.key).encode(),
        ".png": figure,
        ".html": page(title, about, numbers, costs, figure).encode(),
    }
    for ending, content in contents.items():
        write_atomic(Path(settings.output) / f"{NAME}{ending}", content)
    return [Path(settings.output) / f"{NAME}{ending}" for ending in contents]


def _about(settings: Comparison, ledger: StageLedger, command: str, hardware: str) -> list[str]:
    """What the numbers are of, a sentence each."""
    every = stages(settings)
    done = sum(ledger.done(stage) is not None for stage in every)
    state = "" if done == len(every) else f" {len(every) - done} of {len(every)} stages are still missing."
    seeds = ", ".join(map(str, settings.seeds))
    return [
        f"{settings.evaluate.tasks} tasks at each value, the same for every mode; training seeds: {seeds}.{state}",
        f"Command: {command}. Hardware: {hardware}.",
        INTERVALS,
    ]


def _markdown(title: str, about: Sequence[str], *tables: tuple[list[str], list[list[str]]]) -> str:
    numbers, costs = (table.markdown(*each) for each in tables)
    parts = [f"# {printable(title)}", *about, numbers, f"![{NAME}]({NAME}.png)", "## Cost", COSTS, costs]
    return "\n\n".join(parts) + "\n"


def page(
    title: str,
    about: Sequence[str],
    numbers: tuple[list[str], list[list[str]]],
    costs: tuple[list[str], list[list[str]]],
    figure: bytes,
) -> str:
    """One HTML file that needs nothing else; it holds no script."""
    safe, picture = html.escape(printable(title)), base64.b64encode(figure).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    told = "".join(f"<p>{html.escape(printable(each))}</p>" for each in about)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{safe}</title>'
        f"<style>{STYLE}</style></head><body><h1>{safe}</h1>{told}{_table(*numbers)}"
        f'<img alt="measures by memory mode" src="data:image/png;base64,{picture}">'
        f"<h2>Cost</h2><p>{html.escape(COSTS)}</p>{_table(*costs)}</body></html>\n"
    )


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(printable(c))}</td>' for c in line)}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def drawn(found: Sequence[table.Row], key: str) -> bytes:
    """The figure as PNG: a line for each memory mode, a panel for each measure."""
    known = {name for row in found for name in row.result.row.measures}
    names = [name for name in DRAWN if name in known and not (name == "reward" and "em_mean" in known)]
    figure: Figure = by_objectives([row.result.row for row in found], names, key.rsplit(".", 1)[-1])
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130, metadata={"Software": None})
    return content.getvalue()
