"""Cost of a BM25 index: built in memory, written, opened memory-mapped and searched; 21 M passages are extrapolated.

    python benchmarks/retrieval.py --passages 1000000 --folder FOLDER --output benchmarks/retrieval.json

Passages are those of as many generated encyclopedias as it takes. Size and memory grow in proportion to the passages;
that was not measured at 21 M, and real passages (wiki-18 has 100 words) are about five times as long as these.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish

from lightning_mem1.environments.qa.encyclopedia.world import Encyclopedia
from lightning_mem1.environments.qa.retrieval.bm25 import BM25

WIKI = 21_015_324
PER_WORLD = 5400
TOLERANCE = 0.25


def main() -> int:
    """Measure, write, check."""
    parser = arguments("Cost of a BM25 index.")
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--folder", default="bm25-index")
    parser.add_argument("--search", action="store_true", help="only open the index of the folder and search it")
    given = parser.parse_args()
    if given.search:
        print(json.dumps(search(given.folder)))
        return 0
    found = build(given)
    print(json.dumps(found, indent=1))
    return finish(found, ratios, given, TOLERANCE)


def ratios(found: dict[str, Any]) -> Ratios:
    """The index beside what it is made of, opening beside building, a search beside opening."""
    return Ratios(
        lower={
            "size of the index to the passages in memory": found["size_gib"] / found["passages_gib"],
            "memory of building to the passages": found["build_peak_gib"] / found["passages_gib"],
            "opening to building": found["open_s"] / found["build_s"],
            "a thousand queries to building": found["median_query_ms"] / found["build_s"],
        }
    )


def build(given: argparse.Namespace) -> dict[str, Any]:
    """Build and save an index, and search it in a process of its own."""
    passages = [
        passage for seed in range(-(-given.passages // PER_WORLD)) for passage in Encyclopedia(seed, PER_WORLD).passages
    ][: given.passages]
    before, started = _peak_gib(), time.perf_counter()
    index = BM25(passages)
    built = time.perf_counter()
    index.save(given.folder)
    saved = time.perf_counter()
    size = sum(path.stat().st_size for path in Path(given.folder).iterdir()) / 2**30
    command = [sys.executable, __file__, "--search", "--folder", given.folder]
    searched = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    scale = WIKI / len(passages)
    return {
        "num_passages": len(passages),
        "words_per_passage": statistics.fmean(len(p.text.split()) for p in passages[:1000]),
        "build_s": built - started,
        "save_s": saved - built,
        "build_peak_gib": _peak_gib(),
        "passages_gib": before,
        "size_gib": size,
        **searched,
        "extrapolated_21m_not_measured": {
            "build_s": (built - started) * scale,
            "build_peak_gib": _peak_gib() * scale,
            "size_gib": size * scale,
            "median_query_ms": searched["median_query_ms"] * scale,
        },
    }


def search(folder: str) -> dict[str, float]:
    """Open the index in a fresh process and search for names that it holds."""
    started = time.perf_counter()
    index = BM25.open(folder)
    opened = time.perf_counter()
    rng = random.Random(0)
    names = [index.passages[rng.randrange(len(index.passages))].title for _ in range(300)]
    index.search(names[:1])
    seconds = []
    for name in names:
        begun = time.perf_counter()
        index.search([name])
        seconds.append(time.perf_counter() - begun)
    return {
        "open_s": opened - started,
        "median_query_ms": statistics.median(seconds) * 1e3,
        "p95_query_ms": sorted(seconds)[int(0.95 * len(seconds))] * 1e3,
        "search_peak_gib": _status_gib("VmHWM"),
        "search_private_gib": _private_gib(),
    }


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _status_gib(name: str) -> float:
    """A line of this process' status (Linux); `ru_maxrss` would be the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 2**20


def _private_gib() -> float:
    """Memory of this process alone, without the mapped index that processes share (Linux)."""
    with open("/proc/self/statm") as file:
        resident, shared = map(int, file.read().split()[1:3])
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE") / 2**30


if __name__ == "__main__":
    sys.exit(main())
