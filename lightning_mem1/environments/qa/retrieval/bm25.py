"""BM25 over passages, in process, on the bm25s library; on disk the index is memory-mapped and shared by processes.

Titles count twice: a passage about a thing should stand before the passages that only mention it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mem1.environments.qa.retrieval.index_folder import Lines, check_note, write_note
from lightning_mem1.environments.qa.retrieval.passage import Passage
from lightning_mem1.environments.qa.retrieval.words import words
from lightning_mem1.io.atomic_files import atomic_folder

MAX_QUERY_CHARS = 2000
PROBE = (  # words of every kind; see `code_version`
    Passage("C++", "Vitamin C and the U.S.-based Town 6 of 1,234.50 (don't ask)."),
    Passage("東京タワー", "東京 is Tōkyō; naïve cafés in the São Paulo of État, straße and ΑΒΓ, русский."),
    Passage("", "a of the an is it running runs ran under_score x2 e-mail"),
)


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
    def open(cls, folder: str | Path, corpus: str | None = None, name: str = "") -> BM25:
        """Open an index on disk without reading it into memory.

        Args:
            folder: Where it was saved.
            corpus: Fingerprint of the passages that are meant; None where any will do.
            name: What they are called.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is of other passages or of another version, or damaged.
        """
        path = check_note(folder, "bm25", code_version(), corpus, name)
        opened = cls.__new__(cls)
        opened._index = _bm25s().BM25.load(str(path), mmap=True)
        opened.passages = Lines(path)
        return opened

    def save(self, folder: str | Path, corpus: str = "") -> None:
        """Write the index with the fingerprint of its passages, see `atomic_folder`."""
        with atomic_folder(folder) as beside:
            self._index.save(str(beside))
            Lines.write(self.passages, beside)
            write_note(beside, "bm25", code_version(), corpus, len(self.passages))

    def search(self, queries: Sequence[str], top_k: int = 3) -> list[list[Passage]]:
        """Return the best passages of each query; only those that share a word with it."""
        return [self._search(query, top_k) for query in queries]

    def _search(self, query: str, top_k: int) -> list[Passage]:
        known = [word for word in dict.fromkeys(words(query[:MAX_QUERY_CHARS])) if word in self._index.vocab_dict]
        if not known:
            return []
        scores = self._index.get_scores(known)
        hits = np.flatnonzero(scores > 0)  # few: choosing among all, zeros included, takes most of the time
        if len(hits) > top_k:
            hits = hits[np.argpartition(scores[hits], -top_k)[-top_k:]]
        best = hits[np.lexsort((hits, -scores[hits]))]
        return [scored(self.passages[int(i)], float(scores[i])) for i in best]


@cache
def code_version() -> str:
    """What the code makes of a few texts, as eight hex digits: another version may split and weigh words otherwise."""
    index = _build(PROBE, title_weight=2)
    weights = [np.round(index.get_scores([word]), 2).tolist() for word in sorted(index.vocab_dict) if word]
    seen = [[words(passage.contents) for passage in PROBE], sorted(index.vocab_dict), weights]
    return hashlib.blake2b(json.dumps(seen).encode(), digest_size=4).hexdigest()


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
    numbers, found = _Numbers(), []
    for passage in passages:
        counted = words(passage.title, single=True) * title_weight + words(passage.text, single=True)
        found.append(list(map(numbers.__getitem__, counted)))
    if not numbers:
        raise ValueError(f"nothing to index: expected passages with words, got {len(found)} without")
    bm25s = _bm25s()
    index = bm25s.BM25()
    index.index(bm25s.tokenization.Tokenized(ids=found, vocab=dict(numbers)), show_progress=False)
    return index


class _Numbers(dict[str, int]):
    """Word -> number in the order of first sight."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number


def scored(passage: Passage, score: float) -> Passage:
    return Passage(passage.title, passage.text, passage.url, score)
