"""Commands that take long: each runs once, in a process of its own, with its cost; what is done is not repeated.

A job that is done has a file in ``<folder>/jobs``, which holds its command, wall clock and CPU seconds; what it printed
is in ``<folder>/logs``. A job that was killed runs again, and its command has to know how to continue.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        name: What it is called, its stage first: ``rl/mem1/0``.
        command: Arguments of python.
        checkpoint: Once this file is there, the command continues from it (``--ckpt_path``).
        extends: Whether another command of the same name adds to what is there; otherwise it is refused.
    """

    name: str
    command: tuple[str, ...]
    checkpoint: Path | None = None
    extends: bool = False

    @property
    def stage(self) -> str:
        """The first part of the name."""
        return self.name.split("/")[0]


# arguments of python, a file for what is printed -> exit code, CPU seconds
Start = Callable[[Sequence[str], Path], tuple[int, float]]


def in_process_of_its_own(command: Sequence[str], log: Path) -> tuple[int, float]:
    """Run python in the repository root, on one thread: two that share two cores are slower together than in turn."""
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with open(log, "ab") as out:
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=out, stderr=out, env=environment)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_utime + used.ru_stime


def run_all(jobs: Sequence[Job], folder: Path, at_once: int = 1, start: Start = in_process_of_its_own) -> None:
    """Run what is not done, `at_once` at a time; all are tried before the first failure is reported.

    Raises:
        ValueError: the folder holds a job of this name and another command.
        RuntimeError: a command failed.
    """
    todo = [job for job in jobs if not _done(job, folder)]
    with ThreadPoolExecutor(at_once) as pool:
        problems = [problem for problem in pool.map(lambda job: _run(job, folder, start), todo) if problem]
    if problems:
        raise RuntimeError(problems[0])


def cost(folder: Path) -> dict[str, dict[str, float]]:
    """Stage -> number of jobs done, their wall clock and CPU hours; attempts that were killed are not counted."""
    found: dict[str, dict[str, float]] = {}
    for path in sorted((folder / "jobs").glob("*.json")):
        told = json.loads(path.read_text())
        hours = found.setdefault(told["stage"], {"jobs": 0, "hours": 0.0, "cpu_hours": 0.0})
        hours["jobs"] += 1
        hours["hours"] += told["seconds"] / 3600
        hours["cpu_hours"] += told["cpu_seconds"] / 3600
    return found


def _done(job: Job, folder: Path) -> bool:
    path = _place(job, folder, "jobs", "json")
    if not path.exists():
        return False
    known = json.loads(path.read_text())["command"]
    if known == list(job.command) or job.extends:
        return bool(known == list(job.command))
    raise ValueError(
        f"'{path}' was made by another command: expected '{' '.join(known)}', got '{' '.join(job.command)}'; "
        "take the same settings, or another --output"
    )


def _run(job: Job, folder: Path, start: Start) -> str:
    """Run a job; returns what went wrong, nothing when it went well."""
    log = _place(job, folder, "logs", "log")
    resumed = ("--ckpt_path", str(job.checkpoint)) if job.checkpoint and job.checkpoint.exists() else ()
    print(f"{time.strftime('%H:%M:%S')}  {job.name}", flush=True)
    begun = time.perf_counter()
    code, cpu_seconds = start([*job.command, *resumed], log)
    if code:
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        return f"{job.name} failed with {code}: {' '.join(last)} (all of it: {log})"
    path = _place(job, folder, "jobs", "json")
    before = json.loads(path.read_text()) if path.exists() else {"seconds": 0.0, "cpu_seconds": 0.0}  # it is added to
    told = {
        "stage": job.stage,
        "command": job.command,
        "seconds": round(before["seconds"] + time.perf_counter() - begun, 1),
        "cpu_seconds": round(before["cpu_seconds"] + cpu_seconds, 3),
    }
    path.write_text(json.dumps(told, indent=1) + "\n")
    return ""


def _place(job: Job, folder: Path, kind: str, ending: str) -> Path:
    path = folder / kind / f"{job.name.replace('/', '.')}.{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
