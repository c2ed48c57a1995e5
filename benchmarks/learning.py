"""What every algorithm makes of the bundled policy: greedy validation at the start and at the end, over seeds.

    python benchmarks/learning.py --experiments webshop,qa --jobs 2 --output benchmarks/learning.json
    python benchmarks/learning.py --algorithms grpo,ppo --seeds 0 --override=--model.lr --override=1e-3

Every run is the experiment's own command with the algorithm, the seed and the number of rl_steps exchanged, on one
thread; `--jobs` run at once. Runs that the output file already holds are not repeated. The figures are the experiment's
own validation: 100 tasks, greedy, before the first rl_step and after the last.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish, integers, some_of, surroundings

ROOT = Path(__file__).parents[1]
EXPERIMENTS = [
    str(path.relative_to(ROOT / "experiments").with_suffix(""))
    for path in sorted(ROOT.glob("experiments/**/*.yaml"))
    if "warmstart" not in OmegaConf.load(path)  # those are for lightning_mem1.warmstart.train
]
ALGORITHMS = ("grpo", "dr_grpo", "rloo", "reinforce_pp", "dapo", "gspo", "gigpo", "ppo", "raft", "resum_grpo")
THREADS = "1"  # of each run
TOLERANCE = 0.1  # rewards, which vary from seed to seed
VALIDATION = re.compile(r"^val\s+(\d+)\s+reward ([\d.]+)\s+success ([\d.]+)", re.MULTILINE)


def run(
    experiment: str, algorithm: str, seed: int, rl_steps: int, overrides: Sequence[str], logs: str | None = None
) -> dict[str, Any]:
    """Train once; the rewards and successes of its validations by rl_step, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lightning_mem1.fit", str(ROOT / "experiments" / f"{experiment}.yaml")]
        chosen = {
            "--model.algorithm": algorithm,
            "--seed_everything": seed,
            "--data.num_rl_steps": rl_steps,
            "--trainer.default_root_dir": folder,
        }
        command += [str(part) for pair in chosen.items() for part in pair] + list(overrides)
        begun = time.perf_counter()
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": THREADS}
        )
    if logs:
        name = "-".join([experiment, algorithm, str(seed), str(rl_steps), *overrides]).replace("/", "_")
        Path(logs).mkdir(parents=True, exist_ok=True)
        Path(logs, f"{name}.log").write_text(done.stdout)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    curve = [(int(step), float(reward), float(success)) for step, reward, success in VALIDATION.findall(done.stdout)]
    return {
        "experiment": experiment,
        "algorithm": algorithm,
        "seed": seed,
        "rl_steps": rl_steps,
        "overrides": list(overrides),
        "seconds": round(time.perf_counter() - begun),
        "validation": curve,
    }


def table(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown: one line per experiment and algorithm."""
    lines = [
        "| experiment | algorithm | rl_steps | start | end (mean of seeds) | each seed | success | seconds a run |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    keys = sorted({(r["experiment"], r["rl_steps"], ALGORITHMS.index(r["algorithm"]), *r["overrides"]) for r in runs})
    for experiment, rl_steps, place, *overrides in keys:
        name = ALGORITHMS[place]
        same = [
            r
            for r in runs
            if (r["experiment"], r["rl_steps"], r["algorithm"], r["overrides"])
            == (experiment, rl_steps, name, overrides)
        ]
        ends = [each["validation"][-1] for each in same]
        start = statistics.fmean(each["validation"][0][1] for each in same)
        reward, success = (statistics.fmean(end[i] for end in ends) for i in (1, 2))
        seconds = statistics.fmean(each["seconds"] for each in same)
        each_end = ", ".join(f"{end[1]:.3f}" for end in ends)
        label = " ".join([name, *overrides])
        cells = [
            experiment,
            label,
            rl_steps,
            f"{start:.3f}",
            f"{reward:.3f}",
            each_end,
            f"{success:.2f}",
            f"{seconds:.0f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def ratios(found: dict[str, Any]) -> Ratios:
    """The reward at the end to that at the start, over seeds."""
    groups: dict[str, list[list[Any]]] = {}
    for each in found["runs"]:
        name = " ".join([each["experiment"], each["algorithm"], f"{each['rl_steps']} rl_steps", *each["overrides"]])
        groups.setdefault(name, []).append(each["validation"])
    return Ratios(
        higher={
            name: statistics.fmean(c[-1][1] for c in curves) / statistics.fmean(c[0][1] for c in curves)
            for name, curves in groups.items()
        }
    )


def main() -> int:
    """Run what is missing, write after every run, print the table, check."""
    parser = arguments("Compare algorithms from the same start.")
    parser.add_argument("--experiments", type=some_of(EXPERIMENTS), default=["webshop", "qa"])
    parser.add_argument("--algorithms", type=some_of(ALGORITHMS), default=list(ALGORITHMS))
    parser.add_argument("--seeds", type=integers, default=[0, 1, 2])
    parser.add_argument("--rl_steps", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--override", action="append", default=[], help="handed on to the command")
    parser.add_argument("--logs", help="a folder for what each run prints")
    options = parser.parse_args()
    output = Path(options.output) if options.output else None
    known: list[dict[str, Any]] = json.loads(output.read_text())["runs"] if output and output.exists() else []
    found_so_far = {"threads": THREADS, "jobs": options.jobs, "runs": known}

    def keep(found: dict[str, Any]) -> None:
        known.append(found)
        known.sort(key=lambda r: (r["experiment"], ALGORITHMS.index(r["algorithm"]), r["overrides"], r["seed"]))
        if output:
            output.write_text(json.dumps({**surroundings(), **found_so_far}, indent=1) + "\n")

    names = ("experiment", "algorithm", "seed", "rl_steps", "overrides")
    done = {json.dumps([each[name] for name in names]) for each in known}
    wanted = [
        (experiment, algorithm, seed, options.rl_steps, options.override)
        for seed, algorithm, experiment in product(options.seeds, options.algorithms, options.experiments)
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        missing = [each for each in wanted if json.dumps(list(each)) not in done]
        for found in pool.map(lambda each: run(*each, options.logs), missing):
            keep(found)
            print(table([found])[-1], flush=True)
    print("\n".join(table(known)))
    return finish(found_so_far, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
