"""How long workers and ranks wait for the longest episode, and what a second worker and a killed one change.

    OMP_NUM_THREADS=1 python benchmarks/rollout_queue.py --output benchmarks/rollout_queue.json

Waiting is simulated: real groups of `experiments/webshop.yaml` are played once, and an event simulation deals them out
as ranks that each have their own tasks would, and as one queue does whose workers may play `max_staleness` rl_steps
ahead. A group takes as many passes of the engine as its longest episode has tokens. An update has a machine of its own
and takes a share of the time that the workers need for an rl_step when they never wait.

Speed and kills are measured with real workers, speed with Ray's too where it is installed. Where cores are not idle,
only processor seconds say how two workers compare with one.
"""

from __future__ import annotations

import heapq
import os
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish, integers

GROUP = 8
TOLERANCE = 0.15
AHEAD, UPDATES = (0, 1, 2, 3, 4), (0.0, 0.5, 0.9)


def dealt(groups: Sequence[int], ranks: int, update: float) -> float:
    """Share of the ranks' time in which they wait, each rank with one task an rl_step and an update after it."""
    steps = [groups[first : first + ranks] for first in range(0, len(groups) - ranks + 1, ranks)]
    seconds = sum(max(step) for step in steps) + update * len(steps)
    return 1 - sum(map(sum, steps)) / (ranks * seconds)


def queued(groups: Sequence[int], workers: int, tasks: int, ahead: int, update: float) -> float:
    """The same with one queue: an rl_step may begin as soon as the update `ahead` + 1 rl_steps before it is done.

    >>> queued([4, 2, 4, 2], 2, 2, ahead=0, update=0.0)  # the second worker waits 2 of 4, twice
    0.25
    >>> queued([4, 2, 4, 2], 2, 2, ahead=1, update=0.0)  # it begins the second rl_step early
    0.0
    """
    free = [0.0] * workers
    updated = [0.0]  # when the update of each rl_step ended; the first weights are there
    for step in range(len(groups) // tasks):
        allowed, ends = updated[max(0, step - ahead)], []
        for passes in groups[step * tasks : (step + 1) * tasks]:
            ends.append(max(heapq.heappop(free), allowed) + passes)
            heapq.heappush(free, ends[-1])
        updated.append(max(*ends, updated[-1]) + update)
    played = sum(groups[: len(groups) // tasks * tasks])
    return round(1 - played / (workers * max(free)), 12)


def group_passes(num_groups: int, policy: str) -> tuple[list[int], list[int]]:
    """Passes of each group (its longest episode), and tokens of every episode, played for real."""
    import torch
    from engine_speed import workload

    from lightning_mem1.rollout.collect import Episode, collect

    torch.set_num_threads(1)
    source, settings, engines = workload("webshop", policy, "")
    engine, tokens = engines["local"](), []
    for first in range(0, num_groups, GROUP):  # as many episodes at once as the experiment has
        tasks = [source.task("train", index) for index in range(first, min(first + GROUP, num_groups))]
        episodes = [
            Episode(task, source.env(task), place, seed=(first + place) * GROUP + sample)
            for place, task in enumerate(tasks)
            for sample in range(GROUP)
        ]
        with torch.no_grad():
            played = collect(episodes, engine, engine.policy.tokenizer, settings)
        tokens += [sum(len(turn.action_ids) for turn in t.turns) for t in played]
    return [max(tokens[i : i + GROUP]) for i in range(0, len(tokens), GROUP)], tokens


def simulated(groups: Sequence[int], num_workers: Sequence[int], updates: Sequence[float]) -> list[dict[str, Any]]:
    """Waiting shares by workers and update: dealt out beforehand, and one queue by how far ahead it may play."""
    found = []
    stream = [group for _ in range(64) for group in groups]  # the groups again and again, so that the ends count little
    for workers in num_workers:
        mean = statistics.mean(stream)  # each worker has one group an rl_step
        for update in updates:
            shares = {f"max_staleness {k}": queued(stream, workers, workers, k, update * mean) for k in AHEAD}
            row = {"workers": workers, "update": update, "dealt out": dealt(stream, workers, update * mean), **shares}
            found.append({name: round(value, 3) for name, value in row.items()})
    return found


Kind = Literal["processes", "ray"]


class Workers:
    """Real workers with the experiment's settings."""

    def __init__(self, count: int, policy: str, kind: Kind = "processes") -> None:
        from engine_speed import workload

        from lightning_mem1.engine.settings import EngineSettings
        from lightning_mem1.environments.webshop.tasks import ShopTasks
        from lightning_mem1.policy.policy import LoraSettings, Policy
        from lightning_mem1.rollout.workers.factory import make_workers
        from lightning_mem1.rollout.workers.job import Plan, Weights
        from lightning_mem1.rollout.workers.settings import WorkerSettings

        self.source, self.settings, _ = workload("webshop", policy, "")
        lora, engine = LoraSettings(r=16, alpha=32), EngineSettings(num_slots=64, max_context_tokens=1536)
        plan = Plan(lambda: ShopTasks(results_per_page=5), policy, lora, {}, engine, "mem1", "cpu", 1)
        nothing = {"num_cpus": 0.0}  # one worker and two are there at once, on a machine of two cores
        self.pool: Any = make_workers(plan, WorkerSettings(kind, count, resources=nothing))
        self.weights = Weights.of(0, Policy.load(policy, lora=lora).adapter_state())

    def play(self, tasks: range, kill: bool = False) -> dict[str, Any]:
        """Play groups; with `kill`, a worker that is playing dies after the first job that is over."""
        from lightning_mem1.rollout.workers.job import Part, jobs_of

        parts = [Part(self.source.task("train", n), n, tuple(n * GROUP + k for k in range(GROUP))) for n in tasks]
        over: list[Any] = []

        def on_job(played: Any) -> None:
            over.append(played)
            if kill and len(over) == 1:
                os.kill(self.pool.crew.processes()[0], signal.SIGKILL)

        before, started = self._cpu(), time.perf_counter()
        played = self.pool.play(jobs_of(parts, self.settings, self.pool.crew.count), self.weights, on_job)
        seconds, after = time.perf_counter() - started, self._cpu()
        spent = [now - before.get(pid, 0.0) for pid, now in after.items()]
        texts = [[turn.action_ids for turn in t.turns] for t in played]
        return {"seconds": seconds, "cpu_s": sum(spent), "episodes": len(played), "texts": texts}

    def _cpu(self) -> dict[int, float]:
        import psutil

        times = {pid: psutil.Process(pid).cpu_times() for pid in self.pool.crew.processes()}
        return {pid: each.user + each.system for pid, each in times.items()}


def speeds(policy: str, tasks: int, repeats: int, kind: Kind = "processes") -> dict[str, Any]:
    """One worker and two by turns, by the clock and by processor seconds of all workers.

    Two workers play twice as many tasks, so that a job is as large. With a core each they are twice as fast as one, as
    far as an episode costs them no more processor time.
    """
    crews = {number: Workers(number, policy, kind) for number in (1, 2)}
    rates: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for repeat in range(repeats + 1):
        for number, crew in crews.items():
            found = crew.play(range(2 * repeat * tasks, (2 * repeat + number) * tasks))
            if repeat:  # the first round starts the workers
                rates[number].append((found["episodes"] / found["seconds"], found["episodes"] / found["cpu_s"]))
    for crew in reversed(crews.values()):  # the first one may have started Ray, and ends it
        crew.pool.close()
    clock, cpu = ([statistics.median(each[place] for each in rates[n]) for n in (1, 2)] for place in (0, 1))
    return {
        "episodes_per_s": [round(each, 2) for each in clock],
        "episodes_per_cpu_s": [round(each, 2) for each in cpu],
        "times_one_by_the_clock": round(clock[1] / clock[0], 2),
        "times_one_by_processor": round(2 * cpu[1] / cpu[0], 2),
    }


def kills(policy: str, tasks: int, repeats: int) -> dict[str, Any]:
    """Two workers, one of which dies while it plays, and the same without by turns."""
    crew, costs, lost = Workers(2, policy), [], 0
    for repeat in range(repeats):
        stretch = range(repeat * tasks, (repeat + 1) * tasks)
        crew.play(stretch)  # the shop remembers its searches, a replaced worker has to make them again
        whole, killed = crew.play(stretch), crew.play(stretch, kill=True)
        costs.append(killed["seconds"] - whole["seconds"])
        lost += sum(one != other for one, other in zip(whole["texts"], killed["texts"], strict=True))
    restarts = crew.pool.stats.restarts
    crew.pool.close()
    return {
        "kills": restarts,
        "seconds_per_kill": round(statistics.median(costs), 1),
        "seconds_of_the_worst_kill": round(max(costs), 1),
        "episodes_lost_or_changed": lost,
    }


def ratios(found: dict[str, Any]) -> Ratios:
    """What two workers are to one, and what waits."""
    rows = {(row["workers"], row["update"]): row for row in found["simulated"]}
    waiting = {f"{w} workers, update {u}": row["max_staleness 4"] for (w, u), row in rows.items()}
    kinds = {"processes": found["real"], **({"ray": found["real"]["ray"]} if "ray" in found["real"] else {})}
    speed = {f"two workers ({kind}), by processor": each["times_one_by_processor"] for kind, each in kinds.items()}
    return Ratios(higher=speed, lower=waiting)


def main() -> int:
    """Play, simulate, measure, print, check."""
    parser = arguments("Waiting, speed and kills with one queue of episodes.")
    parser.add_argument("--policy", default="bundled")
    parser.add_argument("--groups", type=int, default=96, help="real groups of GROUP episodes for the simulation")
    parser.add_argument("--workers", type=integers, default=[8, 64], help="simulated; each has one task an rl_step")
    parser.add_argument("--tasks", type=int, default=16, help="of a round with real workers")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    groups, tokens = group_passes(options.groups, options.policy)
    rows = simulated(groups, options.workers, UPDATES)
    print(f"| {' | '.join(rows[0])} |\n|{' --- |' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(map(str, row.values()))} |", flush=True)
    how = (options.policy, options.tasks, options.repeats)
    real = {**speeds(*how), **kills(*how)}
    if find_spec("ray"):
        real["ray"] = speeds(*how, kind="ray")
    for name, value in real.items():
        print(f"{name}: {value}")
    about = {"policy": options.policy, "episodes": len(tokens), "tasks": options.tasks, "repeats": options.repeats}
    lengths = {"tokens_median": statistics.median(tokens), "tokens_max": max(tokens), "group_passes": groups}
    return finish({**about, **lengths, "simulated": rows, "real": real}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
