"""The folder of a run: a free one, or that of the run that is resumed, held by a lock while the run is under way."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from lightning_mem1.cli import restarts, startup
from lightning_mem1.io.file_lock import FileLock, Locked

RUN_FOLDER = "LIGHTNING_MEM1_RUN_FOLDER"  # says to the processes of further ranks where the first one writes
LOCK = "run.lock"
CONFIG = "config.yaml"

_locks: list[FileLock] = []


def new_folder(experiment: str, runs: str | Path = "runs") -> Path:
    """Make ``runs/<experiment>/<number>``, the next free number; further ranks make and write none."""
    if folder := _folder_of_parent():
        return folder
    if not startup.is_first_rank():  # started by torchrun or SLURM: it cannot know the first one's
        return Path(runs) / experiment
    number = 0
    while True:
        folder = Path(runs) / experiment / str(number)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            continue
        os.environ[RUN_FOLDER] = f"{os.getpid()}:{folder}"
        return folder


def _folder_of_parent() -> Path | None:
    """What the first rank made before it started this process, and no earlier run's of whoever called torchrun."""
    parent, _, folder = os.environ.get(RUN_FOLDER, "").partition(":")
    return Path(folder) if "LOCAL_RANK" in os.environ and parent == str(os.getppid()) else None


def settled(given: str | None, experiment: str, checkpoint: str | None, last: bool, config: str | None) -> Path:
    """The folder that a run writes, locked until `releasing` ends.

    Args:
        given: The folder that settings name; None for one of `runs`.
        experiment: Its name.
        checkpoint: The checkpoint that is resumed, None for none.
        last: Whether that is the experiment's last one, so that its run is resumed in place.
        config: The config's path: a run's saved config makes a new run next to that one.

    Raises:
        ValueError: the folder holds another run, or one that is under way.
    """
    if given is None:
        folder = Path(checkpoint).parents[1] if checkpoint and last else new_folder(experiment)
    elif not startup.is_first_rank():
        folder = _folder_of_parent() or Path(given)
    else:
        folder = _free(Path(given), experiment, checkpoint, _is_saved(config, given))
    if startup.is_first_rank():
        _hold(folder)
    return folder


def _free(given: Path, experiment: str, checkpoint: str | None, saved: bool) -> Path:
    """A folder that settings name, or a new one where it holds another run than the one that is resumed."""
    holds = any(given.glob("checkpoints/*.ckpt"))
    if (checkpoint and given.resolve() in Path(checkpoint).resolve().parents) or not (holds or saved):
        return given
    if restarts.is_restart() and restarts.is_ours(given):
        return given
    if not saved:
        raise ValueError(
            f"folder holds a run: expected one without checkpoints, got '{given}'; set --trainer.default_root_dir to "
            "another one, or resume that run with --ckpt_path last"
        )
    folder = new_folder(experiment)
    print(f"{given} holds a run: this one goes to {folder}", flush=True)
    return folder


def experiment_of(config: str | None, given: str | None) -> str | None:
    """The experiment of a saved config, ``runs/<experiment>/<number>/config.yaml``; None for any other config."""
    return Path(given).resolve().parent.name or None if given and _is_saved(config, given) else None


def _is_saved(config: str | None, folder: str) -> bool:
    """Whether a config is the one that a run saved in its folder."""
    return config is not None and Path(config).resolve() == (Path(folder) / CONFIG).resolve()


def _hold(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)

    def report(who: str) -> None:
        print(f"{folder} was written by {who}: checking for 2 minutes whether it still runs", file=sys.stderr)

    try:
        lock.acquire(report)
    except Locked as error:
        raise ValueError(
            f"run is under way: expected a folder that no run writes, got '{folder}' of {error}; wait for its end, or "
            "leave --ckpt_path out for a new run"
        ) from error
    _locks.append(lock)
    restarts.leave_name(folder)


@contextlib.contextmanager
def releasing() -> Iterator[None]:
    """At its end gives up the locks, and removes the folder of a run that never wrote anything."""
    try:
        yield
    finally:
        while _locks:
            lock = _locks.pop()
            lock.release()
            with contextlib.suppress(OSError):
                restarts.take_back_name(lock.path.parent)
                lock.path.parent.rmdir()
