"""An rl_step of this checkout and of another one by turns: what a change of the code makes of it.

    git worktree add ../before COMMIT
    OMP_NUM_THREADS=1 python benchmarks/two_checkouts.py ../before --output benchmarks/two_checkouts.json
    python benchmarks/two_checkouts.py ../before --clock    # as a user has it, all cores idle

Both run `fit` on the same experiments with the same seeds, in turns, in processes of their own; the first rl_step is
left out. The rollouts of both are compared number by number: how many rl_steps had the same rewards, turns and
tokens by turn.
Processor seconds are compared unless `--clock` is given: a busy machine stretches them less.
"""

from __future__ import annotations

import csv
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, commit_of, finish
from rl_step import UNTRACKED, times

HERE = Path(__file__).parents[1]
SAME = re.compile(r"memory/(?!process_gib)|rollout/(reward|turns|success|group_std|invalid_action_rate)")
TOLERANCE = 0.2


def rl_steps(checkout: Path, experiment: str, steps: int, clock: bool) -> tuple[list[float], list[tuple[str, ...]]]:
    """Seconds of each rl_step but the first, and what was played in each."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lightning_mem1.fit", str(checkout / "experiments" / f"{experiment}.yaml")]
        command += ["--data.num_rl_steps", str(steps), "--trainer.default_root_dir", folder]
        command += ["--trainer.limit_val_batches", "0"]
        command += [*UNTRACKED, folder]
        now = (lambda _: time.perf_counter()) if clock else _processor_seconds
        ended = times(command, folder, now, {**os.environ, "PYTHONPATH": str(checkout)})
        played = [
            tuple(value for name, value in sorted(row.items()) if SAME.match(name))
            for path in Path(folder).glob("**/metrics.csv")
            for row in csv.DictReader(path.read_text().splitlines())
            if row.get("rollout/reward")
        ]
    return [after - before for before, after in zip(ended, ended[1:], strict=False)], played


def _processor_seconds(process: int) -> float:
    used = psutil.Process(process).cpu_times()
    return used.user + used.system


def by_turns(other: Path, experiment: str, steps: int, repeats: int, clock: bool) -> dict[str, Any]:
    """Medians of both, and the median ratio of the pairs."""
    spent: dict[str, list[float]] = {"now": [], "before": []}
    same = 0
    for _ in range(repeats):
        found = {}
        for name, checkout in (("before", other), ("now", HERE)):
            seconds, found[name] = rl_steps(checkout, experiment, steps, clock)
            spent[name].append(statistics.fmean(seconds))
        same = sum(one == two for one, two in zip(found["now"], found["before"], strict=True))
    pairs = [before / now for before, now in zip(spent["before"], spent["now"], strict=True)]
    return {
        **{name: round(statistics.median(each), 2) for name, each in spent.items()},
        "times_as_fast": round(statistics.median(pairs), 2),
        "pairs": [round(each, 2) for each in pairs],
        "rl_steps_that_played_the_same": f"{same} of {steps}",
    }


def ratios(found: dict[str, Any]) -> Ratios:
    """How many times as fast as before."""
    return Ratios(higher={name: each["times_as_fast"] for name, each in found["experiments"].items()})


def main() -> int:
    """Measure by turns, print, write, check."""
    parser = arguments("Compare an rl_step of this checkout with one of another.")
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("--experiments", default="webshop,qa")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", action="store_true", help="by the clock in place of processor seconds")
    options = parser.parse_args()
    found = {}
    print("| experiment | now | before | times as fast | played the same |\n| --- | --- | --- | --- | --- |")
    for name in options.experiments.split(","):
        found[name] = by_turns(options.other.resolve(), name, options.steps, options.repeats, options.clock)
        print("| " + " | ".join([name, *(str(value) for key, value in found[name].items() if key != "pairs")]) + " |")
    about = {"before": commit_of(options.other), "steps": options.steps, "repeats": options.repeats}
    seconds = "by the clock" if options.clock else "processor"
    return finish({**about, "seconds": seconds, "experiments": found}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
