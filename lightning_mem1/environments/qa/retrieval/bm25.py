"""BM25 over passages, in process, on the bm25s library; on disk the index is memory-mapped and shared by processes.

Titles count twice: a passage about a thing should stand before the passages that only mention it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mem1.environments.qa.retrieval.passage import Passage
from lightning_mem1.io.atomic_files import atomic_folder

READY = "passages.json"  # written last: a folder without it is not an index
MAX_QUERY_CHARS = 2000


class BM25:
    """Finds passages by their words.

    Args:
        passages: What can be found.
        title_weight: How often a title counts.

    Raises:
        ValueError: there is no passage with a word in it.
    """

    def __init__(self, passages: Iterable[Passage], title_weight: int = 2) -> None:
        self.passages: Sequence[Any] = list(passages)
        self._index = _build(self.passages, title_weight)

    @classmethod
    def open(cls, folder: str | Path) -> BM25:
        """Open an index on disk without reading it into memory.

        Raises:
            FileNotFoundError: there is none.
        """
        path = Path(folder)
        if not (path / READY).is_file():
            raise FileNotFoundError(
                f"no BM25 index: expected a folder with {READY}, got '{path}'; make it with BM25(...).save(folder)"
            )
        opened = cls.__new__(cls)
        opened._index = _bm25s().BM25.load(str(path), mmap=True)
        opened.passages = Lines(path)
        return opened

    def save(self, folder: str | Path) -> None:
        """Write the index, see `atomic_folder`."""
        with atomic_folder(folder) as beside:
            self._index.save(str(beside))
            Lines.write(self.passages, beside)

    def search(self, queries: Sequence[str], top_k: int = 3) -> list[list[Passage]]:
        """Return the best passages of each query; only those that share a word with it."""
        return [self._search(query, top_k) for query in queries]

    def _search(self, query: str, top_k: int) -> list[Passage]:
        words = [
            word for word in dict.fromkeys(_tokens([query[:MAX_QUERY_CHARS]])[0]) if word in self._index.vocab_dict
        ]
        if not words:
            return []
        scores = self._index.get_scores(words)
        hits = np.flatnonzero(scores > 0)  # few: choosing among all, zeros included, takes most of the time
        if len(hits) > top_k:
            hits = hits[np.argpartition(scores[hits], -top_k)[-top_k:]]
        best = hits[np.lexsort((hits, -scores[hits]))]
        return [scored(self.passages[int(i)], float(scores[i])) for i in best]


def built(kind: Any, passages: Callable[[], Sequence[Passage]], folder: str | Path | None, **settings: Any) -> Any:
    """An index of passages in memory, or the one in a folder, made there when it is missing.

    Args:
        kind: `BM25` or `dense.Dense`.
        passages: Makes the passages; called only when there is no index yet.
        folder: Where it is kept; None for memory only.
        settings: Further arguments of `kind`.
    """
    if folder is None:
        return kind(passages(), **settings)
    if not (Path(folder) / READY).is_file():
        kind(passages(), **settings).save(folder)
    return kind.open(folder, **settings) if settings else kind.open(folder)


@cache
def _bm25s() -> Any:
    """The library, kept from starting jax where that is installed: jax would take three quarters of a GPU's memory."""
    unused = "jax" not in sys.modules
    if unused:
        sys.modules["jax"] = None  # type: ignore[assignment]
    try:
        import bm25s
    finally:
        if unused:
            sys.modules.pop("jax", None)
    return bm25s


def _build(passages: Sequence[Passage], title_weight: int) -> Any:
    texts = [" ".join([p.title] * title_weight + [p.text]) for p in passages]
    if not any(map(str.strip, texts)):
        raise ValueError(f"nothing to index: expected passages with words, got {len(texts)} without")
    bm25s = _bm25s()
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    return index


def _tokens(texts: list[str]) -> list[list[str]]:
    return list(_bm25s().tokenize(texts, stopwords="en", show_progress=False, return_ids=False))


def scored(passage: Passage, score: float) -> Passage:
    return Passage(passage.title, passage.text, passage.url, score)


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
        (folder / READY).write_text(json.dumps({"format": 1, "num_passages": len(starts) - 1}))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: Any) -> Any:
        start, end = self._starts[index], self._starts[index + 1]
        return Passage(*json.loads(bytes(self._lines[start:end])))
