"""Seconds until a command says something: help, the config, a mistake in it, and the first reward of an experiment.

    OMP_NUM_THREADS=1 python benchmarks/start.py --output benchmarks/start.json
    OMP_NUM_THREADS=1 python benchmarks/start.py --against ANOTHER_CHECKOUT

Every run is a fresh Python in an empty folder, stopped at its first reward. Processor seconds (user and system, of the
process and its children) stand next to the clock's; only they are held, as ratios to the time that Python takes to
import the libraries which any training imports. With ``--against`` another checkout takes its turn after each run, and
the ratios of these pairs are held as well.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, commit_of, finish

ROOT = Path(__file__).parents[1]
LIBRARIES = "import lightning, transformers, peft"
TOLERANCE = 0.25


@dataclass(frozen=True)
class Asked:
    """A command line.

    Attributes:
        words: What follows ``python``; ``{root}`` is the checkout.
        until: Where it is stopped: a word of its output; empty for its end.
        status: The exit status of one that ends by itself.
    """

    words: tuple[str, ...]
    until: str = ""
    status: int = 0


FIT = ("-m", "lightning_mem1", "fit")
ASKED = {
    LIBRARIES: Asked(("-c", LIBRARIES)),
    "--help": Asked(("-m", "lightning_mem1", "--help")),
    "fit --help": Asked((*FIT, "--help")),
    "fit webshop --model.optim.lr abc": Asked((*FIT, "webshop", "--model.optim.lr", "abc"), status=1),
    "webshop.yaml --print_config": Asked((*FIT, "{root}/experiments/webshop.yaml", "--print_config")),
    "webshop.yaml, first reward": Asked((*FIT, "{root}/experiments/webshop.yaml"), until="reward"),
    "qa.yaml, first reward": Asked((*FIT, "{root}/experiments/qa.yaml"), until="reward"),
}


@dataclass(frozen=True)
class Seconds:
    """What a run took.

    Attributes:
        processor: User and system time of the process and its children.
        wall: Time by the clock.
    """

    processor: float
    wall: float


def measured(asked: Asked, root: Path) -> Seconds:
    """Run a command of a checkout in an empty folder.

    Raises:
        RuntimeError: it ended before what it is asked for, or with another status.
    """
    words = [sys.executable, *(word.format(root=root) for word in asked.words)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    said: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        run = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder, env=environment
        )
        assert run.stdout is not None
        for line in run.stdout:
            said.append(line)
            if asked.until and asked.until in line:
                run.kill()
                break
        wall = time.perf_counter() - begun
        _, status, used = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
        run.stdout.close()
    if not (asked.until and said and asked.until in said[-1]) and (asked.until or run.returncode != asked.status):
        raise RuntimeError(f"{' '.join(words)} ended with status {run.returncode}:\n{''.join(said[-5:])}")
    return Seconds(used.ru_utime + used.ru_stime, wall)


def ratios(found: Mapping[str, Any]) -> Ratios:
    """Every command to the libraries alone, and to the same command of the other checkout."""
    processor = dict(found["processor_seconds"])
    libraries = processor.pop(LIBRARIES)
    lower = {f"{name} to the libraries": each / libraries for name, each in processor.items()}
    for commit, other in found.get("against", {}).items():
        lower |= {f"{name} to {commit}": each for name, each in other["ratios"].items()}
    return Ratios(lower=lower)


def compared(mine: Mapping[str, list[Seconds]], theirs: Mapping[str, list[Seconds]]) -> dict[str, Any]:
    """What another checkout took, and the median ratio of pairs, this one to it, by processor seconds."""
    pairs = {name: [a.processor / b.processor for a, b in zip(mine[name], theirs[name], strict=True)] for name in mine}
    return {
        **medians(theirs),
        "ratios": {name: round(statistics.median(each), 3) for name, each in pairs.items() if name != LIBRARIES},
    }


def medians(found: Mapping[str, list[Seconds]]) -> dict[str, dict[str, float]]:
    """Medians by command."""
    return {
        f"{kind}_seconds": {
            name: round(statistics.median(getattr(each, kind) for each in runs), 2) for name, runs in found.items()
        }
        for kind in ("processor", "wall")
    }


def main() -> int:
    """Measure, print, write, check."""
    parser = arguments("Seconds until a command says something.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--against", type=Path, action="append", default=[], metavar="FOLDER", help="another checkout")
    options = parser.parse_args()
    roots = {"": ROOT, **{commit_of(each): each.resolve() for each in options.against}}
    runs: dict[str, dict[str, list[Seconds]]] = {commit: {} for commit in roots}
    print(f"| command | {' | '.join(commit or 'processor seconds, by the clock' for commit in roots)} |")
    print(f"| --- |{' --- |' * len(roots)}")
    for name, asked in ASKED.items():
        for _ in range(options.repeats):
            for commit, root in roots.items():
                runs[commit].setdefault(name, []).append(measured(asked, root))
        shown = [{kind: each[name] for kind, each in medians(of).items()} for of in runs.values()]
        cells = [f"{each['processor_seconds']}, {each['wall_seconds']}" for each in shown]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    found = {"repeats": options.repeats, **medians(runs[""])}
    others = {commit: compared(runs[""], of) for commit, of in runs.items() if commit}
    return finish({**found, **({"against": others} if others else {})}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
