"""Files and folders that are there atomically: a kill or a full disk leaves the old one or the new one.

Several processes may write the same file at the same time: each writes a temporary file next to it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lightning_mem1.io.disk_room import room_for

BESIDE = ".tmp"
MAX_WRITE_S = 3600.0  # a temporary file of another machine that is older belongs to no process
_numbers = itertools.count()


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Write a temporary file next to the old one, wait until the disk has it, and put it in the old one's place.

    Raises:
        OSError: it cannot be written; says how much room it takes. The old file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = beside_of(path)
    try:
        with open(beside, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        size_mib = math.ceil(10 * len(content) / 2**20) / 10
        raise OSError(
            f"cannot write '{path}': expected room for {size_mib:.1f} MiB, got '{error.strerror or error}'; "
            "earlier files are complete: free some space and resume from there"
        ) from error


def beside_of(path: Path) -> Path:
    """A free name next to a file, of this process alone; what killed processes left there is deleted.

    ``last.ckpt`` has ``last.ckpt.<host>-<process>-<number>.tmp`` next to it.
    """
    for left in path.parent.glob(f"{_escaped(path.name)}.*{BESIDE}"):
        if _is_left(left, path.name):
            left.unlink(missing_ok=True)
    return path.with_name(f"{path.name}.{_host()}-{os.getpid()}-{next(_numbers)}{BESIDE}")


def _is_left(path: Path, name: str) -> bool:
    """Whether the process that wrote a file next to `name` is gone."""
    found = re.fullmatch(rf"{re.escape(name)}\.(.+)-(\d+)-\d+{re.escape(BESIDE)}", path.name)
    if not found:
        return False
    if found[1] == _host():
        return int(found[2]) != os.getpid() and not _is_alive(int(found[2]))
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > MAX_WRITE_S
    return False


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # there signal 0 is no question
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _host() -> str:
    return re.sub(r"[^\w.]", "_", socket.gethostname())[:64]


def _escaped(name: str) -> str:
    """A name as a pattern of `glob` that means itself."""
    return re.sub(r"([*?\[])", r"[\1]", name)


@contextlib.contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """Write into the folder given here; it takes its place when all is there.

    Of several that write the same folder at the same time, in this process or others, one stays.

    Raises:
        OSError: it cannot take its place, and no other stands there.
    """
    path = Path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        os.chmod(beside, 0o755)  # who reads it, a server or a colleague, may be another user
        with room_for(path):
            yield beside
        try:
            os.rename(beside, path)
        except OSError:
            if not path.is_dir() or not any(path.iterdir()):
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def keep(path: Path, kept: Path, pattern: str, num_kept: int) -> None:
    """Keep a file's content under a second name too, and only the last few names that match.

    Args:
        path: The file, which is replaced and never written into, so that both names may share one content.
        kept: The second name, in the same folder.
        pattern: What the second names look like; their alphabetic order is their age.
        num_kept: How many of them stay, 0 for none.
    """
    if num_kept:
        beside = beside_of(kept)
        try:
            os.link(path, beside)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, beside)
        os.replace(beside, kept)
        beside.unlink(missing_ok=True)  # two names of one content already: nothing was moved
    names = sorted(kept.parent.glob(pattern))
    for old in names[: len(names) - num_kept]:
        old.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Without it the new name may be lost when the power fails."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
