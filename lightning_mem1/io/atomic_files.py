"""Files and folders that are there whole or not at all: a kill or a full disk leaves the old one or the new one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

BESIDE = ".tmp"


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Write beside the old file, wait until the disk has it, and put it in the old one's place.

    Raises:
        OSError: it cannot be written; tells the room that it takes. The old file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + BESIDE)
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        size_mib = len(content) / 2**20
        raise OSError(
            f"cannot write '{path}': expected room for {size_mib:.1f} MiB, got '{error.strerror or error}'; "
            "what was written before is whole: make room and go on from there"
        ) from error


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
        beside = kept.with_name(kept.name + BESIDE)
        beside.unlink(missing_ok=True)
        try:
            os.link(path, beside)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, beside)
        os.replace(beside, kept)
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
