"""Hashes of data files; a large one is read again only when its dates or its size have changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

TRUST_STAT_FROM = 64 << 20  # bytes


def content_hash(path: str, remembered: Path | None = None) -> str:
    """The hash of a file's content, or of all files of a folder with their names.

    Args:
        path: The file or folder.
        remembered: A JSON file with the hashes of large files, kept up to date where it can be written.

    Raises:
        FileNotFoundError: there is neither.
    """
    place = Path(path)
    if place.is_dir():
        parts = [f"{each.name}:{_of_file(each, remembered)}" for each in sorted(place.iterdir()) if each.is_file()]
        return hashlib.sha256(";".join(parts).encode()).hexdigest()
    if not place.is_file():
        raise FileNotFoundError(f"no such data: expected a file, got '{path}'; set data.questions or data.corpus")
    return _of_file(place, remembered)


def _of_file(path: Path, remembered: Path | None) -> str:
    stat = path.stat()  # the time of change cannot be set by hand
    mark = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    large = remembered is not None and stat.st_size >= TRUST_STAT_FROM
    known = _known(remembered) if remembered is not None and large else {}
    name = str(path.resolve())
    if known.get(name, [None])[0] == mark:
        return str(known[name][1])
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if remembered is not None and large:
        _keep(remembered, {**known, name: [mark, found]})
    return found


def _known(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in known.items() if isinstance(v, list) and len(v) == 2} if isinstance(known, dict) else {}


def _keep(path: Path, known: dict[str, Any]) -> None:
    """Replace the file; a folder that cannot be written costs the next opening its time and nothing else."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with contextlib.suppress(OSError):
        part.write_text(json.dumps(known), encoding="utf-8")
        os.replace(part, path)
