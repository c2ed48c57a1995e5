"""How many tokens a finished command worked on, as its own files say."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from lightning_mem1.evaluation.comparison.stages import Stage

_CARD = re.compile(r"^\| cost \| ([\d.]+) M trained tokens", re.MULTILINE)


def num_tokens(stage: Stage) -> int:
    """Tokens of a warm start (trained, contexts included) or of a training (sampled, in all rl_steps); else 0."""
    if stage.kind == "warmstart":
        card = stage.output / "README.md"
        found = _CARD.search(card.read_text(encoding="utf-8")) if card.is_file() else None
        return round(float(found[1]) * 1e6) if found else 0
    return sum(_sampled(stage.output).values()) if stage.kind == "fit" else 0


def _sampled(folder: Path) -> dict[int, int]:
    """rl_step -> tokens sampled; a run that was resumed has a file for each attempt, and the last word counts."""
    found: dict[int, int] = {}
    for path in sorted(folder.glob("metrics/version_*/metrics.csv"), key=lambda path: path.stat().st_mtime):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                rate, seconds = row.get("rollout/tokens_per_s"), row.get("rollout/seconds")
                if rate and seconds:
                    found[int(row["step"])] = round(float(rate) * float(seconds))
    return found
