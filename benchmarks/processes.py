"""Rollouts per second of one process and of several at the same time, each on a core of its own.

    OMP_NUM_THREADS=1 python benchmarks/processes.py --output benchmarks/processes.json

Every process has its own shop, bundled policy and local engine, as a rank of a training has, and plays the groups of
`experiments/webshop.yaml` by sampling; nothing is learnt. One process alone and all of them together take turns in the
same run, so that whatever else the machine does meets both; a figure is the ratio of medians. All play the same tasks
in a round, and others in the next one: a shop remembers its searches.
Processor seconds stand beside the clock: where a process got much less than a second of processor time per second, its
core was not its own and the ratio says nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish

GROUP = 8
TOLERANCE = 0.15


def work(asked: Connection, core: int, policy: str) -> None:
    """Play whenever asked to, from a number of tasks and a round, until asked for none; tells processor seconds."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    import torch
    from engine_speed import workload

    from lightning_mem1.rollout.collect import Episode, collect

    torch.set_num_threads(1)
    source, settings, engines = workload("webshop", policy, "")
    engine = engines["local"]()
    asked.send(0.0)
    while tasks := asked.recv():
        started = time.process_time()
        episodes = [
            Episode(task, source.env(task), position, seed=position * GROUP + sample)
            for position, task in enumerate(source.task("train", index) for index in tasks)
            for sample in range(GROUP)
        ]
        with torch.no_grad():
            collect(episodes, engine, engine.policy.tokenizer, settings)
        asked.send(time.process_time() - started)


def together(workers: Sequence[Connection], tasks: range) -> dict[str, float]:
    """Let workers play these tasks at the same time; ends with the last of them."""
    started = time.perf_counter()
    for worker in workers:
        worker.send(tasks)
    cpu = [worker.recv() for worker in workers]
    seconds = time.perf_counter() - started
    return {"rollouts_per_s": len(workers) * len(tasks) * GROUP / seconds, "cpu_share": sum(cpu) / len(cpu) / seconds}


def measured(processes: int, tasks: int, repeats: int, policy: str) -> dict[str, Any]:
    """One process and all of them by turns."""
    context = multiprocessing.get_context("spawn")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(processes))
    ours = []
    for place in range(processes):
        here, there = context.Pipe()
        core = cores[place % len(cores)]
        context.Process(target=work, args=(there, core, policy), daemon=True).start()
        there.close()  # a worker that dies is an end of its pipe
        ours.append(here)
    for worker in ours:
        worker.recv()
    rounds: dict[str, list[dict[str, float]]] = {"one": [], "all": []}
    for number in range(2 * (repeats + 1)):
        name, workers = ("all", ours) if number % 2 else ("one", ours[:1])
        found = together(workers, range(number * tasks, (number + 1) * tasks))
        if number > 1:  # the first round of each warms up
            rounds[name].append(found)
    for worker in ours:
        worker.send(None)
    result = {
        name: {key: round(statistics.median(each[key] for each in found), 3) for key in found[0]}
        for name, found in rounds.items()
    }
    ratio = result["all"]["rollouts_per_s"] / result["one"]["rollouts_per_s"]
    return {"processes": processes, "episodes": tasks * GROUP, **result, "times_one": round(ratio, 2)}


def ratios(found: dict[str, Any]) -> Ratios:
    """Rollouts per second of all processes to those of one."""
    return Ratios(higher={f"{found['processes']} processes": found["times_one"]})


def main() -> int:
    """Measure, print, check."""
    parser = arguments("Compare the rollouts of one process with those of several.")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=16, help="of each process in a round, GROUP episodes each")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--policy", default="bundled")
    options = parser.parse_args()
    found = measured(options.processes, options.tasks, options.repeats, options.policy)
    for name in ("one", "all"):
        each = found[name]
        number = 1 if name == "one" else found["processes"]
        print(
            f"{number} at a time: {each['rollouts_per_s']:.2f} rollouts/s, {each['cpu_share']:.2f} processor seconds "
            "per second and process"
        )
    print(f"{found['times_one']:.2f} times the rollouts/s of one process")
    return finish({"repeats": options.repeats, "policy": options.policy, **found}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
