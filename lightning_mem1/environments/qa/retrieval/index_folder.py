"""What is noted in the folder of an index, so that one of another corpus or another version is never searched."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mem1.environments.qa.retrieval.passage import Passage

READY = "passages.json"  # written last: a folder without it is not an index
REMEMBERED = "hashes.json"  # in the same folder, of large files of passages; see `Corpus.fingerprint`
FORMAT = 2


def write_note(folder: Path, kind: str, code: str, corpus: str, num_passages: int) -> None:
    """Write the note, when all other files of the index are there.

    Args:
        folder: Where the index is being made.
        kind: ``bm25`` or ``dense``.
        code: What the code makes of texts, see `bm25.code_version`.
        corpus: Fingerprint of the passages, empty when it is not known.
        num_passages: How many there are.
    """
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    note = {"format": FORMAT, "kind": kind, "code": code, "corpus": corpus, "num_passages": num_passages}
    (folder / READY).write_text(json.dumps({**note, "sizes": sizes}))


def check_note(folder: str | Path, kind: str, code: str, corpus: str | None = None, name: str = "") -> Path:
    """Check that a folder holds an index of this kind, made by code that does the same, of this corpus.

    Args:
        folder: The folder.
        kind: See `write_note`.
        code: See `write_note`.
        corpus: Fingerprint of the passages that are meant; None where any will do.
        name: What they are called.

    Returns:
        The folder as a path.

    Raises:
        FileNotFoundError: there is no index.
        ValueError: it is another one, or files of it are missing.
    """
    path = Path(folder)
    if not (path / READY).is_file():
        raise FileNotFoundError(
            f"no {kind} index: expected a folder with {READY}, got '{path}'; make it, see data.index"
        )
    note = _read(path)
    rebuild = f"delete '{path}' and run again to rebuild it, or set data.index to another folder"
    if note.get("format") != FORMAT:
        raise ValueError(
            f"index '{path}' is of an earlier version, which did not note what it holds: expected format {FORMAT}, got "
            f"{note.get('format')}; {rebuild}"
        )
    if note["kind"] != kind:
        raise ValueError(f"index '{path}' is of another retriever: expected {kind}, got {note['kind']}; {rebuild}")
    if note["code"] != code:
        raise ValueError(
            f"index '{path}' was made by a version that splits or weighs words otherwise: expected {code}, got "
            f"{note['code']}; {rebuild}"
        )
    if corpus is not None and note["corpus"] != corpus:
        raise ValueError(
            f"index '{path}' is of another corpus: expected {name} ({corpus}), got {note['corpus'] or 'unknown'} with "
            f"{note['num_passages']:,} passages; {rebuild}"
        )
    for each, size in note["sizes"].items():
        if not (path / each).is_file() or (path / each).stat().st_size != size:
            raise ValueError(f"index '{path}' is damaged: expected {size:,} bytes in {each}; {rebuild}")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        note = json.loads((path / READY).read_text(encoding="utf-8"))
    except ValueError:
        note = None
    return note if isinstance(note, dict) else {}


class Lines(Sequence[Passage]):
    """Passages in a file, one JSON array a line; only where each begins is held."""

    def __init__(self, folder: Path) -> None:
        self._lines = np.memmap(folder / "passages.jsonl", dtype=np.uint8, mode="r")
        self._starts = np.load(folder / "starts.npy", mmap_mode="r")

    @staticmethod
    def write(passages: Iterable[Passage], folder: Path) -> None:
        starts = [0]
        with open(folder / "passages.jsonl", "wb") as file:
            for passage in passages:
                line = json.dumps([passage.title, passage.text, passage.url], ensure_ascii=False)
                starts.append(starts[-1] + file.write(line.encode("utf-8", "replace") + b"\n"))
        np.save(folder / "starts.npy", np.array(starts, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: Any) -> Any:
        start, end = self._starts[index], self._starts[index + 1]
        return Passage(*json.loads(bytes(self._lines[start:end])))
