"""Memory, open files and threads of a training process by rl_step: none of them may grow.

    OMP_NUM_THREADS=1 python benchmarks/soak.py --rl_steps 500

A tiny random policy plays the tests' tiny tasks; everything else is what any run has: the command line, MLflow in
sqlite, checkpoints, traces, transcripts, pictures, a validation every ten rl_steps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish, hardware
from webshop_scale import memory_mib

ROOT = Path(__file__).parents[1]
Row = dict[str, float]
TOLERANCE = 0.2


class Watch(Callback):
    """Appends a line to a file: the rl_step, resident memory in MiB, open files, threads.

    Args:
        path: The file.
        every_n_rl_steps: How often.
    """

    def __init__(self, path: str, every_n_rl_steps: int) -> None:
        self.path, self.every_n_rl_steps = path, every_n_rl_steps

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Look at this process (Linux)."""
        if pl_module.rl_step % self.every_n_rl_steps == 0:
            row = {"rl_step": pl_module.rl_step, "rss_mib": memory_mib()["rss_mib"]}
            row |= {name: len(os.listdir(f"/proc/self/{place}")) for name, place in PLACES.items()}
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


PLACES = {"open_files": "fd", "threads": "task"}


def soak(rl_steps: int, every: int, folder: Path) -> list[Row]:
    """Train in a process of its own; what it took, every few rl_steps."""
    from tiny import tiny_policy

    tiny_policy().save(folder / "policy")
    (folder / "soak.yaml").write_text(yaml.safe_dump(settings(rl_steps, every, folder)))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")])}
    command = [sys.executable, "-W", "ignore", "-m", "lightning_mem1.fit", "soak.yaml"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def settings(rl_steps: int, every: int, folder: Path) -> dict[str, Any]:
    """The config of the run."""
    from tiny_tasks import tiny_config

    watch = {"class_path": "soak.Watch", "init_args": {"path": str(folder / "rows.jsonl"), "every_n_rl_steps": every}}
    config = tiny_config(str(folder / "policy"), rl_steps)
    config["trainer"]["callbacks"] = [watch]
    return config


def table(rows: list[Row]) -> list[str]:
    """Markdown."""
    lines = ["| rl_step | RSS MiB | open files | threads |", "| --- | --- | --- | --- |"]
    return lines + [f"| {' | '.join(f'{value:g}' for value in row.values())} |" for row in rows]


def ratios(found: dict[str, Any]) -> Ratios:
    """The last line to the first, which is behind the start."""
    first, last = found["rows"][0], found["rows"][-1]
    return Ratios(lower={name: last[name] / first[name] for name in ("rss_mib", "open_files", "threads")})


def main() -> int:
    """Soak, print, check."""
    parser = arguments("Memory, open files and threads by rl_step.")
    parser.add_argument("--rl_steps", type=int, default=500)
    parser.add_argument("--every", type=int, default=50, help="rl_steps between two lines")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = soak(options.rl_steps, options.every, Path(folder))
    print("\n".join([hardware(), *table(rows)]))
    return finish({"rl_steps": options.rl_steps, "rows": rows}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
