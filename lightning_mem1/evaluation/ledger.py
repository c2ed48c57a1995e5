"""What was played, one line per finished trajectory: a run that was stopped resumes where it was.

A line is written in one piece as soon as its trajectory ends; a line that a kill cut short is dropped and its
trajectory played again. A ledger belongs to one set of settings: others are refused, never mixed in.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_mem1.io.atomic_files import write_atomic
from lightning_mem1.io.disk_room import room_for

LINES, SETTINGS, EPISODES = "trajectories.jsonl", "settings.json", "episodes.jsonl"
Key = tuple[str, int, int]


@dataclass(frozen=True)
class Record:
    """A finished trajectory.

    Attributes:
        memory: Memory mode with its settings, see `MemoryMode.spelled`.
        objectives: Objectives of its task.
        index: Number of the task among those of as many objectives.
        task: The task's id.
        stop_reason: Why it ended.
        error: What failed when it ended with an error.
        measures: Numbers by name, see `measures`.
        by_turn: Numbers of each turn by name, see `by_turn`; empty in folders written before there were any.
    """

    memory: str
    objectives: int
    index: int
    task: str
    stop_reason: str
    error: str
    measures: Mapping[str, float]
    by_turn: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What no two records of a ledger share."""
        return self.memory, self.objectives, self.index


class Ledger:
    """The finished trajectories in a folder.

    Args:
        folder: Holds ``trajectories.jsonl``, ``settings.json`` and, of trajectories for the page, ``episodes.jsonl``;
            made when it is not there.
        settings: Everything that a trajectory depends on, as plain values.
        fresh: Drop what the folder holds and start again.

    Raises:
        ValueError: the folder holds trajectories of other settings, or a line that nobody can read.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any], fresh: bool = False) -> None:
        self.folder = Path(folder)
        self.settings = json.loads(json.dumps(settings, default=str))
        self.hash = settings_hash(self.settings)
        self.folder.mkdir(parents=True, exist_ok=True)
        if fresh:
            for name in (LINES, SETTINGS, EPISODES):
                (self.folder / name).unlink(missing_ok=True)
        self._check_settings()
        repaired(self.folder / EPISODES)
        self.records = {record.key: record for record in self._read()}
        write_atomic(self.folder / SETTINGS, (json.dumps(self.settings, indent=1) + "\n").encode())

    def add(self, record: Record) -> None:
        """Write a record down."""
        self._append(LINES, {"settings": self.hash, **asdict(record)})
        self.records[record.key] = record

    def add_episode(self, key: Key, episode: Mapping[str, Any]) -> None:
        """Keep what the page shows of a trajectory; before its record, so that none with a record is missing."""
        self._append(EPISODES, {"key": key, "episode": episode})

    def episodes(self) -> dict[Key, dict[str, Any]]:
        """What was kept for the page; the last word on a trajectory counts, a line that nobody can read does not."""
        found: dict[Key, dict[str, Any]] = {}
        for line in repaired(self.folder / EPISODES):
            try:
                entry = json.loads(line)
                found[tuple(entry["key"])] = entry["episode"]
            except (ValueError, TypeError, KeyError):
                continue
        return found

    def _append(self, name: str, entry: Mapping[str, Any]) -> None:
        line = f"{json.dumps(entry)}\n".encode()
        with room_for(self.folder / name), open(self.folder / name, "ab", buffering=0) as file:
            file.write(line)  # one call: it is there or it is not

    def _check_settings(self) -> None:
        path = self.folder / SETTINGS
        try:
            known = dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else self.settings
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"unreadable '{path}': expected settings that this package wrote; set --output to another folder, or "
                "give --fresh to start again"
            ) from error
        for key in sorted({*known, *self.settings}):
            if known.get(key) != self.settings.get(key):
                raise ValueError(
                    f"'{self.folder}' holds trajectories of other settings: expected {key} {known.get(key)!r}, got "
                    f"{self.settings.get(key)!r}; set --output to another folder, or give --fresh to start again"
                )

    def _read(self) -> Iterator[Record]:
        path = self.folder / LINES
        for number, line in enumerate(repaired(path), start=1):
            try:
                entry = json.loads(line)
                belongs = entry.pop("settings") == self.hash
                record = Record(**entry)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(
                    f"unreadable line {number} in '{path}': expected a trajectory that this package wrote; repair the "
                    "file, or give --fresh to start again"
                ) from error
            if not belongs:
                raise ValueError(
                    f"line {number} in '{path}' was played with other settings; set --output to another folder, or "
                    "give --fresh to start again"
                )
            yield record


def repaired(path: Path) -> list[bytes]:
    """The whole lines of a file, none when there is no file; a last line that a kill cut short is cut off."""
    content = path.read_bytes() if path.is_file() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return whole.splitlines()


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Sixteen hex digits that identify settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
