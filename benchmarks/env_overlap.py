"""What environment steps in threads are worth: collecting with replies that take their time, in line and in threads.

    OMP_NUM_THREADS=1 python benchmarks/env_overlap.py --output benchmarks/env_overlap.json

Episodes of the shop as in experiments/webshop.yaml, each reply held back as a service on the network would. The arms
take turns; a figure is the ratio of medians.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish, integers
from engine_speed import GROUP, workload

from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import Engine, Env, StepResult, TaskSource

TOLERANCE = 0.2


class Distant:
    """An environment whose replies come after a pause."""

    def __init__(self, env: Env, pause_s: float) -> None:
        self.env, self.pause_s = env, pause_s
        self.observe = env.observe

    def step(self, action: str) -> StepResult:
        """The environment's reply, later."""
        time.sleep(self.pause_s)
        return self.env.step(action)


def seconds(
    source: TaskSource, engine: Engine, tokenizer: Any, settings: RolloutSettings, episodes: int, pause_s: float
) -> float:
    """Time of collecting."""
    tasks = [source.task("train", i // GROUP) for i in range(episodes)]
    started = [Episode(task, Distant(source.env(task), pause_s), i // GROUP, seed=i) for i, task in enumerate(tasks)]
    begun = time.perf_counter()
    collect(started, engine, tokenizer, settings)
    return time.perf_counter() - begun


def ratios(found: dict[str, Any]) -> Ratios:
    """How many times as fast as in line."""
    return Ratios(
        higher={f"episodes {found['episodes']}, {each['pause_ms']} ms": each["times_in_line"] for each in found["runs"]}
    )


def main() -> int:
    """Measure, print a table, write, check."""
    parser = arguments("Compare environment steps in threads with steps in line.")
    parser.add_argument("--policy", default="bundled")
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--pauses", type=integers, default=[0, 20, 100], help="milliseconds that a reply takes")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    source, settings, engines = workload("webshop", options.policy, "")
    engine = engines["local"]()
    arms = {"in_line": settings, "threads": replace(settings, env_threads=options.threads)}
    runs = []
    print("| a reply takes, ms | in line, s | in threads, s | times in line |\n| --- | --- | --- | --- |")
    for pause_ms in options.pauses:
        spent: dict[str, list[float]] = {arm: [] for arm in arms}
        for repeat in range(options.repeats + 1):
            for arm, each in arms.items():
                took = seconds(source, engine, engine.policy.tokenizer, each, options.episodes, pause_ms / 1e3)
                if repeat:  # the first round warms up
                    spent[arm].append(took)
        in_line, threads = (statistics.median(spent[arm]) for arm in arms)
        one = {"pause_ms": pause_ms, "in_line_s": round(in_line, 2), "threads_s": round(threads, 2)}
        runs.append({**one, "times_in_line": round(in_line / threads, 2)})
        print(f"| {' | '.join(map(str, runs[-1].values()))} |", flush=True)
    about = {"policy": options.policy, "episodes": options.episodes, "env_threads": options.threads}
    return finish({**about, "repeats": options.repeats, "runs": runs}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
