"""What a catalogue costs by its size, to a million products and more: time to index and to open, disk, memory, search.

    mem1 serve-shop --generate SHOPS/1000000 --num-products 1000000
    python benchmarks/webshop_scale.py SHOPS/* --output benchmarks/webshop_scale.json

Each folder is one catalogue. An index that is there is used, and then no build is measured; ``--rebuild`` makes it
anew. Each figure comes from a fresh process; milliseconds and ``build_cpu_s`` are of the processor. Resident memory
counts the pages of the index that a process has touched; the proportional figure shares those among the processes that
have them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from baseline import GIB, Ratios, arguments, finish

from lightning_mem1.environments.webshop import Shop, WebShopEnv
from lightning_mem1.environments.webshop.catalogue.saved import _home

TOLERANCE = 0.25


def memory_mib() -> dict[str, float]:
    """Return resident and proportional memory of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines[1:]}
    return {"rss_mib": round(sizes["Rss"], 1), "pss_mib": round(sizes["Pss"], 1)}


def in_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `work` gives in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def build(folder: str) -> dict[str, float]:
    """Index and open; the peak is of the whole process."""
    start, cpu = time.perf_counter(), time.process_time()
    Shop.from_folder(folder, nouns="rule")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "build_s": round(time.perf_counter() - start, 2),
        "build_cpu_s": round(time.process_time() - cpu, 2),
        "peak_rss_mib": round(peak, 1),
    }


def open_only(folder: str) -> dict[str, float]:
    """Open the saved form."""
    before, start = memory_mib()["rss_mib"], time.perf_counter()
    shop = Shop.from_folder(folder, nouns="rule")
    seconds = time.perf_counter() - start
    return {
        "open_s": round(seconds, 3),
        "products": len(shop.products),
        "goals": len(shop.goals),
        "before_rss_mib": before,
        **memory_mib(),
    }


def queries(shop: Shop, kind: str, count: int, first: int = 0) -> list[str]:
    """Return searches: whole instructions, titles of the wanted products, or their short queries."""
    step = max(len(shop.goals) // (count + 1), 1)
    goals = [shop.goals[(first + number * step) % len(shop.goals)] for number in range(count)]
    return [{"instruction": goal.instruction, "title": goal.name, "query": goal.query}[kind] for goal in goals]


def searching(folder: str, count: int) -> dict[str, Any]:
    """Time searches that were not made before, after a few to warm up."""
    shop, found = Shop.from_folder(folder, nouns="rule"), {}
    for kind in ("instruction", "title", "query"):
        texts = list(dict.fromkeys(queries(shop, kind, count)))
        for text in queries(shop, kind, 10, first=7):
            shop.search(text)
        times = []
        for text in texts:
            start = time.process_time()
            shop.search(text)
            times.append(1000 * (time.process_time() - start))
        found[kind] = {
            "searches": len(texts),
            "median_ms": round(statistics.median(times), 2),
            "p95_ms": round(statistics.quantiles(times, n=20)[-1], 2),
            "max_ms": round(max(times), 2),
        }
    return {**found, "after_all": memory_mib()}


def share(folder: str, number: int, count: int, barrier: Any, results: Any) -> None:
    """Open, search and shop as one of several, and measure while all of them are there."""
    shop = Shop.from_folder(folder, nouns="rule")
    for index, text in enumerate(queries(shop, "instruction", count, first=1000 * number)):
        env = WebShopEnv(shop, shop.goals[index])
        env.step(f"search[{text}]")
        if env.page.results:
            env.step(f"click[{env.page.results[0]}]")
            env.step("click[buy now]")
    barrier.wait()
    results.put(memory_mib())
    barrier.wait()


def sharing(folder: str, num_processes: int, count: int) -> dict[str, float]:
    """Let processes share the index."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(num_processes), context.Queue()
    processes = [
        context.Process(target=share, args=(folder, number, count, barrier, results)) for number in range(num_processes)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=3600) for _ in processes]
    for process in processes:
        process.join()
    return {
        "processes": num_processes,
        "episodes_each": count,
        "rss_mib_each_max": max(each["rss_mib"] for each in found),
        "pss_mib_sum": round(sum(each["pss_mib"] for each in found), 1),
    }


def ratios(found: dict[str, Any]) -> Ratios:
    """The index beside its files, a process that shares beside one alone, long searches beside short ones."""
    return Ratios(
        lower={
            f"{each['open']['products']} products: {name}": ratio
            for each in found["sizes"]
            for name, ratio in _of(each).items()
        }
    )


def _of(size: dict[str, Any]) -> dict[str, float]:
    """The ratios of one catalogue."""
    shared, searches = size["shared"], size["search"]
    return {
        "size of the index to the files": size["index_gib"] / size["json_gib"],
        "memory of a process that shares to that of one alone": shared["pss_mib_sum"]
        / shared["processes"]
        / searches["after_all"]["rss_mib"],
        "search by instruction to search by query": searches["instruction"]["median_ms"]
        / searches["query"]["median_ms"],
    }


def measured(folder: str, options: argparse.Namespace) -> dict[str, Any]:
    """Everything about one catalogue."""
    home = _home(Path(folder))
    if options.rebuild:
        shutil.rmtree(home)
    there = any(home.glob("v*"))
    result: dict[str, Any] = {"load_average_5_min": round(os.getloadavg()[1], 1)}
    result["json_gib"] = round(sum(path.stat().st_size for path in Path(folder).glob("*.json")) / GIB, 4)
    if not there:
        result["build"] = in_process(build, folder)
    result["index_gib"] = round(sum(path.stat().st_size for path in home.glob("v*/*")) / GIB, 4)
    result["open"] = in_process(open_only, folder)
    result["search"] = in_process(searching, folder, options.searches)
    result["shared"] = sharing(folder, options.processes, options.searches)
    return result


def main() -> int:
    """Measure, write, check."""
    parser = arguments("Measure catalogues.")
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="a catalogue each")
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--rebuild", action="store_true")
    options = parser.parse_args()
    sizes = []
    for folder in options.folders:
        sizes.append(measured(folder, options))
        print(json.dumps(sizes[-1], indent=1), flush=True)
    sizes.sort(key=lambda each: each["open"]["products"])
    return finish({"sizes": sizes}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
