"""What a run was made with: the code's commit, versions and machine, and hashes of the tasks and files it saw."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

import torch

from lightning_mem1.types import Split, TaskSource

PACKAGES = ("torch", "lightning", "transformers", "tokenizers", "peft", "numpy")
PACKAGE = Path(__file__).parents[1]


def environment() -> dict[str, str]:
    """Versions and machine by name, e.g. ``{"python": "3.11.9", "torch": "2.13.0", "cpu_threads": "1"}``."""
    known = {name: _version(name) for name in PACKAGES}
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": cpu(),
        "cpu_cores": str(os.cpu_count()),
        "cpu_threads": str(torch.get_num_threads()),
        "gpu": ", ".join(gpus) or "none",
        **known,
    }


def git(folder: Path = PACKAGE) -> dict[str, str]:
    """``commit`` and ``dirty`` ("true" when tracked files differ from it) of a checkout; {} where it is none."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit or _git(folder, "ls-files", "--error-unmatch", ".") is None:  # a folder inside somebody else's
        return {}
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", ".")
    return {"commit": commit, "dirty": "true" if changed else "false"}


def task_digest(source: TaskSource, split: Split, indices: Iterable[int]) -> str:
    """Sixteen hex digits of the tasks with these indices, and of how many their split has."""
    digest = hashlib.sha256(str(source.size(split)).encode())
    for index in indices:
        task = source.task(split, index)
        asked = [[each.question, list(each.answers)] for each in task.objectives]
        content = [task.id, task.prompt, asked, task.max_turns]
        digest.update(json.dumps(content, default=str).encode())
    return digest.hexdigest()[:16]


def file_digests(paths: Sequence[str]) -> dict[str, str]:
    """Sixteen hex digits of each file's content (SHA-256), by path; a folder stands for the files right inside it.

    What is no file here (a name of the hub, an address) is left out.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        files += sorted(path.iterdir()) if path.is_dir() else [path]
    return {str(path): _file_digest(path) for path in files if path.is_file()}


def _file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def cpu() -> str:
    """The processor's own name (Linux), else what Python knows of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _git(folder: Path, *words: str) -> str | None:
    """What git says of a folder; None when it fails or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
