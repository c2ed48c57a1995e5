"""A JSON object too large for memory, kept in a scratch file and looked up by key."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, BinaryIO

import numpy as np


def hash64(text: str) -> int:
    """Return 64 bits that stand for a text, the same in every process."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class KeyedFile:
    """Values by key; memory holds 24 bytes for each. A later value of the same key replaces an earlier one."""

    def __init__(self, entries: Iterable[tuple[str, Any]], file: BinaryIO) -> None:
        """Write the entries to an empty file that can be read and written."""
        self._file = file
        hashes, ends = array("Q"), array("q", [0])
        for key, value in entries:
            data = json.dumps([key, value], ensure_ascii=False).encode("utf-8", "surrogatepass")
            file.write(data)
            hashes.append(hash64(key))
            ends.append(ends[-1] + len(data))
        self._ends = np.array(ends)
        unsorted = np.array(hashes, dtype=np.uint64)
        self._order = np.argsort(unsorted, kind="stable")
        self._hashes = unsorted[self._order]

    def get(self, key: str, default: Any = None) -> Any:
        """Return the last value of a key."""
        wanted = hash64(key)
        place = int(np.searchsorted(self._hashes, np.uint64(wanted), "right")) - 1
        while place >= 0 and int(self._hashes[place]) == wanted:
            found, value = self._read(int(self._order[place]))
            if found == key:
                return value
            place -= 1
        return default

    def _read(self, number: int) -> list[Any]:
        start, end = int(self._ends[number]), int(self._ends[number + 1])
        self._file.seek(start)
        return json.loads(self._file.read(end - start))
