"""Steps per second of the text environment on one core, and how long a shop takes to open.

    OMP_NUM_THREADS=1 python benchmarks/webshop_speed.py FOLDER --output benchmarks/webshop_speed.json

Episodes are those of the rule baseline, written down beforehand, so that only the shop is timed. "new" plays each
search for the first time, "again" finds its searches remembered, as the later episodes of a group do. The files of
the folder are copied, so that the first opening finds no index; processor time is told beside the clock, because a
busy machine stretches only the clock.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish
from webshop_scale import in_process

from lightning_mem1.environments.webshop import Shop, WebShopEnv
from lightning_mem1.environments.webshop.baselines import rule_baseline

TOLERANCE = 0.25


def opened(folder: str) -> dict[str, float]:
    """Time one opening."""
    clock, cpu = time.perf_counter(), time.process_time()
    Shop.from_folder(folder, nouns="rule")
    return {"s": round(time.perf_counter() - clock, 3), "cpu_s": round(time.process_time() - cpu, 3)}


def steps(folder: str, episodes: int, strict: bool) -> dict[str, Any]:
    """Play written episodes twice."""
    written = Shop.from_folder(folder, nouns="rule")
    actions = [rule_baseline(WebShopEnv(written, written.goals[i], strict=strict)).actions for i in range(episodes)]
    searches = sum(action.startswith("search") for game in actions for action in game)
    shop = Shop.from_folder(folder, nouns="rule")  # remembers no search
    result: dict[str, Any] = {
        "episodes": episodes,
        "steps": sum(map(len, actions)),
        "searches_per_episode": searches / episodes,
    }
    for name in ("new", "again"):
        clock, cpu = time.perf_counter(), time.process_time()
        for index, game in enumerate(actions):
            env = WebShopEnv(shop, shop.goals[index], strict=strict)
            env.observe()
            for action in game:
                env.step(action)
        result[f"{name}_steps_per_s"] = round(result["steps"] / (time.perf_counter() - clock))
        result[f"{name}_steps_per_cpu_s"] = round(result["steps"] / (time.process_time() - cpu))
    return result


def ratios(found: dict[str, Any]) -> Ratios:
    """What remembering saves: of opening, and of searching; and what the strict rules cost."""
    default, strict = found["default"], found["strict"]
    return Ratios(
        higher={
            "steps with remembered searches to steps with new ones": default["again_steps_per_cpu_s"]
            / default["new_steps_per_cpu_s"],
            "steps under strict rules to steps without": strict["new_steps_per_cpu_s"] / default["new_steps_per_cpu_s"],
        },
        lower={"opening a saved shop to opening a new one": found["open_saved"]["cpu_s"] / found["open_cold"]["cpu_s"]},
    )


def main() -> int:
    """Measure, write, check."""
    parser = arguments("Measure the shop's speed.")
    parser.add_argument("folder")
    parser.add_argument("--episodes", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as copy:
        for path in Path(options.folder).glob("items_*"):
            shutil.copyfile(path, Path(copy) / path.name)
        result: dict[str, Any] = {}
        result["open_cold"], result["open_saved"] = (in_process(opened, copy) for _ in range(2))
        for name in ("default", "strict"):
            result[name] = in_process(steps, copy, options.episodes, name == "strict")
    print(json.dumps(result, indent=1))
    return finish(result, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
