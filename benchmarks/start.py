"""Seconds until a command says something: `--help`, `--print_config`, and the first reward of an experiment.

    OMP_NUM_THREADS=2 python benchmarks/start.py --output benchmarks/start.json

Every figure is wall time from the start of a fresh Python; the run is stopped at its first reward. Ratios
are to the time that Python takes to import the libraries which any training imports, measured beside them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish

ROOT = Path(__file__).parents[1]
FIT = [sys.executable, "-m", "lightning_mem1.fit"]
LIBRARIES = "import lightning, transformers, peft"
TOLERANCE = 0.25


def ended(*command: str) -> float:
    """Seconds until a command has ended."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - begun


def first_reward(experiment: str) -> float:
    """Seconds until a line with a reward is on the screen."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*FIT, str(ROOT / experiment), "--trainer.default_root_dir", folder]
        begun = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder) as run:
            assert run.stdout is not None
            said = []
            for line in run.stdout:
                said.append(line)
                if "reward" in line:
                    seconds = time.perf_counter() - begun
                    run.kill()
                    return seconds
    raise RuntimeError(f"{experiment} ended without a reward:\n{''.join(said[-5:])}")


def ratios(found: dict[str, Any]) -> Ratios:
    """Every command beside the libraries alone."""
    seconds = dict(found["seconds"])
    libraries = seconds.pop(LIBRARIES)
    return Ratios(lower={f"{name} to the libraries": each / libraries for name, each in seconds.items()})


def main() -> int:
    """Measure, print, write, check."""
    parser = arguments("Seconds until a command says something.")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    asked = {
        LIBRARIES: lambda: ended(sys.executable, "-c", LIBRARIES),
        "--help": lambda: ended(*FIT, "--help"),
        "webshop.yaml --print_config": lambda: ended(*FIT, "experiments/webshop.yaml", "--print_config"),
        "webshop.yaml, first reward": lambda: first_reward("experiments/webshop.yaml"),
        "qa.yaml, first reward": lambda: first_reward("experiments/qa.yaml"),
    }
    found = {}
    print("| command | seconds |\n| --- | --- |")
    for name, measure in asked.items():
        found[name] = round(statistics.median(measure() for _ in range(options.repeats)), 1)
        print(f"| {name} | {found[name]} |", flush=True)
    return finish({"repeats": options.repeats, "seconds": found}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
