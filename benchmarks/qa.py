"""The generated encyclopedia in numbers: what one search finds, what the scripted researcher earns, tasks per second.

    python benchmarks/qa.py --output benchmarks/qa.json

Recall: BM25 with the question itself as the query; a question counts when all its supporting passages are among the
first three. Researcher: exact match per objective on the validation split. Speed: composing and prompting, one process.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish

from lightning_mem1.context.formats import prompt_format
from lightning_mem1.context.tags import QA_TAGS
from lightning_mem1.environments.qa.encyclopedia.questions import questions
from lightning_mem1.environments.qa.encyclopedia.world import Encyclopedia
from lightning_mem1.environments.qa.retrieval.bm25 import BM25
from lightning_mem1.environments.qa.scripted_researcher.researcher import EXPERT_RESEARCHER, ResearcherSkill, play
from lightning_mem1.environments.qa.tasks import EncyclopediaTasks

KINDS = ("fact", "alias", "bridge", "comparison")
TOLERANCE = 0.1


def main() -> int:
    """Measure, write, check."""
    parser = arguments("The generated encyclopedia in numbers.")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = {
        "seed": given.seed,
        "recall_at_3": recall(given.seed),
        "researcher_em": {
            "skill 1.0": earned(given.seed, EXPERT_RESEARCHER),
            "default skill": earned(given.seed, ResearcherSkill()),
        },
        "tasks_per_s": {str(k): speed(given.seed, k) for k in (2, 8)},
    }
    print(json.dumps(found, indent=1))
    return finish(found, ratios, given, TOLERANCE)


def ratios(found: dict[str, Any]) -> Ratios:
    """Shares found and earned, and the speed of tasks of eight questions to that of two."""
    recalls = {f"recall, {name}": each["recall"] for name, each in found["recall_at_3"].items()}
    earnings = {
        f"{skill}, {name}": share for skill, table in found["researcher_em"].items() for name, share in table.items()
    }
    speeds = found["tasks_per_s"]
    return Ratios(higher={**recalls, **earnings, "tasks of 8 to tasks of 2": speeds["8"] / speeds["2"]})


def recall(seed: int) -> dict[str, dict[str, float]]:
    """Share of questions whose whole support one search finds, by hops and kind, over the validation split."""
    world = Encyclopedia(seed)
    library = BM25(world.passages)
    asked = [question for question in questions(world, "val") if not question.needs]
    hits = [set(q.support) <= {p.title for p in library.search([q.text])[0]} for q in asked]
    groups = [*((f"{hops} hops", lambda q, hops=hops: q.hops == hops) for hops in (1, 2, 3))]
    groups += [
        (f"{hops} hops, {kind}", lambda q, hops=hops, kind=kind: (q.hops, q.kind) == (hops, kind))
        for hops in (1, 2, 3)
        for kind in KINDS
    ]
    table = {}
    for name, member in groups:
        chosen = [hit for question, hit in zip(asked, hits, strict=True) if member(question)]
        if chosen:
            table[name] = {"recall": round(fmean(chosen), 3), "questions": len(chosen)}
    return table


def earned(seed: int, skill: ResearcherSkill) -> dict[str, float]:
    """Exact match per objective, by hops and number of objectives, over 160 objectives each."""
    table = {}
    for hops in (1, 2, 3):
        for k in (1, 2, 4, 8):
            source = EncyclopediaTasks(seed, hops=(hops,), objectives=k)
            tasks = [source.task("val", index) for index in range(160 // k)]
            games = [play(source.env(task), task, skill, number) for number, task in enumerate(tasks)]
            table[f"{hops} hops, {k} objectives"] = round(fmean(float(g.info.get("em_mean", 0)) for g in games), 3)
    return table


def speed(seed: int, k: int, number: int = 4000) -> int:
    """Tasks composed and prompted per second, the best of five runs: other work on the machine only slows them."""
    source, chosen = EncyclopediaTasks(seed, objectives=k), prompt_format("qa", QA_TAGS)
    size, best = source.size("train"), 0.0
    for _ in range(5):
        started = time.perf_counter()
        for index in range(number):
            task = source.task("train", index % size)
            chosen.prompt(task.prompt, "", task.max_turns, "brief")
        best = max(best, number / (time.perf_counter() - started))
    return round(best)


if __name__ == "__main__":
    sys.exit(main())
