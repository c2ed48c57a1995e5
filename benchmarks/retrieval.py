"""Cost of a BM25 index by its passages: built in memory, written, opened memory-mapped and searched.

    python benchmarks/retrieval.py --passages 10000,100000,1000000 --folder FOLDER --output benchmarks/retrieval.json

Passages are those of as many generated encyclopedias as it takes. Each size is built in a fresh process and searched in
another one; seconds are of the processor. 21 M passages are extrapolated from the largest size, in proportion; that was
not measured, and real passages (wiki-18 has 100 words) are about five times as long as these.
"""

from __future__ import annotations

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

from baseline import Ratios, arguments, finish, integers

from lightning_mem1.environments.qa.encyclopedia.world import Encyclopedia
from lightning_mem1.environments.qa.retrieval.bm25 import BM25

WIKI = 21_015_324
PER_WORLD = 5400
TOLERANCE = 0.25


def main() -> int:
    """Measure, write, check."""
    parser = arguments("Cost of a BM25 index.")
    parser.add_argument("--passages", type=integers, default=[10_000, 30_000, 100_000, 300_000, 1_000_000])
    parser.add_argument("--folder", default="bm25-index", help="each size has a folder of its own in it")
    parser.add_argument("--part", choices=("build", "search"), help="only this, of one size, printed as JSON")
    given = parser.parse_args()
    if given.part:
        work = {"build": build, "search": search}[given.part]
        print(json.dumps(work(given.folder, given.passages[0])))
        return 0
    sizes = []
    for number in given.passages:
        folder = str(Path(given.folder) / str(number))
        size = in_process("build", folder, number) | in_process("search", folder, number)
        print(json.dumps(size, indent=1), flush=True)
        sizes.append(size)
    return finish({"sizes": sizes, "extrapolated_21m_not_measured": extrapolated(sizes[-1])}, ratios, given, TOLERANCE)


def in_process(part: str, folder: str, number: int) -> dict[str, float]:
    """What a part measures in a fresh process."""
    command = [sys.executable, __file__, "--part", part, "--folder", folder, "--passages", str(number)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def ratios(found: dict[str, Any]) -> Ratios:
    """The index beside what it is made of, opening beside building, a search beside building."""
    return Ratios(
        lower={
            f"{each['num_passages']} passages: {name}": ratio
            for each in found["sizes"]
            for name, ratio in {
                "size of the index to the passages in memory": each["size_gib"] / each["passages_gib"],
                "memory of building to the passages": each["build_peak_gib"] / each["passages_gib"],
                "opening to building": each["open_s"] / each["build_s"],
                "a thousand queries to building": each["median_query_ms"] / each["build_s"],
            }.items()
        }
    )


def build(folder: str, number: int) -> dict[str, float]:
    """Build and save an index."""
    passages = [
        passage for seed in range(-(-number // PER_WORLD)) for passage in Encyclopedia(seed, PER_WORLD).passages
    ][:number]
    before, started = _peak_gib(), time.process_time()
    index = BM25(passages)
    built = time.process_time()
    index.save(folder)
    saved = time.process_time()
    return {
        "load_average_5_min": round(os.getloadavg()[1], 1),
        "num_passages": len(passages),
        "words_per_passage": statistics.fmean(len(p.text.split()) for p in passages[:1000]),
        "build_s": built - started,
        "save_s": saved - built,
        "build_peak_gib": _peak_gib(),
        "passages_gib": before,
        "size_gib": sum(path.stat().st_size for path in Path(folder).iterdir()) / 2**30,
    }


def extrapolated(size: dict[str, float]) -> dict[str, float]:
    """In proportion, for as many passages as wiki-18 has."""
    scale = WIKI / size["num_passages"]
    return {name: size[name] * scale for name in ("build_s", "build_peak_gib", "size_gib", "median_query_ms")}


def search(folder: str, number: int) -> dict[str, float]:
    """Open an index and search for names that it holds."""
    started = time.process_time()
    index = BM25.open(folder)
    opened = time.process_time()
    rng = random.Random(0)
    names = [index.passages[rng.randrange(len(index.passages))].title for _ in range(300)]
    index.search(names[:1])
    seconds = []
    for name in names:
        begun = time.process_time()
        index.search([name])
        seconds.append(time.process_time() - begun)
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
