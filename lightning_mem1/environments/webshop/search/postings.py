"""An inverted index as a few numpy arrays, so that it can lie in memory or in a mapped file that processes share.

What Lucene's BM25 makes of a posting is worked out beforehand, except for the query's own weight.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from lightning_mem1.environments.webshop.search.analyzer import analyze

K1, B = 0.9, 0.4
SPILL_AT = 1 << 22  # postings in memory before they go to the scratch file
SORTED_AT_ONCE = 1 << 23

_F32 = np.float32


def quantised_length(length: int) -> int:
    """Return a document length as Lucene keeps it in one byte: exact below 40, then 4 significant bits.

    >>> [quantised_length(n) for n in (0, 39, 40, 41, 42, 100, 1000)]
    [0, 39, 40, 40, 42, 96, 984]
    """
    if length < 24:
        return length
    value = length - 24  # Lucene's SmallFloat.intToByte4: the first 24 values are spent on exact lengths
    shift = max(value.bit_length() - 4, 0)
    return 24 + ((value >> shift) << shift)


@dataclass(frozen=True)
class Postings:
    """Which documents hold which of V terms, P postings.

    Attributes:
        letters: (L,) uint8, the terms' UTF-8 bytes one after the other, in ascending order.
        ends: (V + 1,) int64, where each term begins; the last is where the last one ends.
        starts: (V + 1,) int64, where each term's postings begin.
        docs: (P,) int32, document numbers, ascending within a term.
        saturations: (P,) float32, 1 + frequency / (k1 * (1 - b + b * length / average length)).
        tops: (V,) float32, the largest saturation of each term.
        counted: (1,) int64, documents that have a term.
    """

    letters: np.ndarray
    ends: np.ndarray
    starts: np.ndarray
    docs: np.ndarray
    saturations: np.ndarray
    tops: np.ndarray
    counted: np.ndarray
    _known: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    def find(self, term: str) -> int:
        """Return the number of a term, -1 when no document holds it."""
        if term not in self._known:
            if len(self._known) > 1 << 16:
                self._known.clear()
            self._known[term] = self._search(term.encode("utf-8", "surrogatepass"))
        return self._known[term]

    def _search(self, term: bytes) -> int:
        low, high = 0, len(self.ends) - 1
        while low < high:
            middle = (low + high) // 2
            if self._term(middle) < term:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self.ends) - 1 and self._term(low) == term else -1

    def _term(self, number: int) -> bytes:
        return self.letters[self.ends[number] : self.ends[number + 1]].tobytes()


class _Terms(dict[str, int]):
    """Term -> number in the order of first sight."""

    def __missing__(self, term: str) -> int:
        self[term] = number = len(self)
        return number


class PostingsBuilder:
    """Collects documents one by one; with a scratch folder, memory holds no more than a slice of the postings."""

    def __init__(self, scratch: Path | None = None) -> None:
        self._terms = _Terms()
        self._numbers, self._counts = array("i"), array("I")  # of every document's terms, one after the other
        self._sizes, self._lengths = array("i"), array("q")  # different terms and words of each document
        self._scratch = scratch

    def add(self, text: str) -> None:
        """Add the next document, in catalogue order."""
        counts = Counter(analyze(text))
        self._numbers.extend(map(self._terms.__getitem__, counts))
        self._counts.extend(counts.values())
        self._sizes.append(len(counts))
        self._lengths.append(counts.total())
        if self._scratch and len(self._numbers) >= SPILL_AT:
            self._spill(self._scratch)

    def finish(self, docs: np.ndarray) -> Postings:
        """Sort by term; `docs` is the number of each document, by place."""
        names = sorted((term.encode("utf-8", "surrogatepass"), number) for term, number in self._terms.items())
        ranks = np.empty(len(names), dtype=np.int32)
        ranks[np.array([number for _, number in names], dtype=np.int64)] = np.arange(len(names), dtype=np.int32)
        ends = np.cumsum([0, *(len(term) for term, _ in names)], dtype=np.int64)
        letters = np.frombuffer(b"".join(term for term, _ in names), dtype=np.uint8)
        self._terms.clear()
        all_numbers, all_counts = self._collected()
        sizes = np.zeros(len(names), dtype=np.int64)
        for first, last in self._slices(len(all_numbers)):
            sizes += np.bincount(ranks[all_numbers[first:last]], minlength=len(names))
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        sorted_docs, saturations = self._sorted(all_numbers, all_counts, ranks, starts, docs.astype(np.int64))
        tops = np.maximum.reduceat(saturations, starts[:-1]) if len(names) else np.zeros(0, dtype=_F32)
        return Postings(letters, ends, starts, sorted_docs, saturations, tops, self._counted())

    def _counted(self) -> np.ndarray:
        return np.array([max(sum(length > 0 for length in self._lengths), 1)], dtype=np.int64)

    def _inverse(self) -> np.ndarray:
        """Return what a frequency is multiplied by in each document."""
        lengths = np.array(self._lengths, dtype=np.int64)
        average = _F32(max(lengths.sum() / int(self._counted()[0]), 1.0))
        different, which = np.unique(lengths, return_inverse=True)
        quantised = np.array([quantised_length(int(length)) for length in different], dtype=_F32)[which]
        return _F32(1) / (_F32(K1) * ((_F32(1) - _F32(B)) + _F32(B) * quantised / average))

    def _sorted(
        self, numbers: np.ndarray, counts: np.ndarray, ranks: np.ndarray, starts: np.ndarray, docs: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return documents and saturations by term and document, sorted some terms at a time."""
        inverse, places = self._inverse(), np.arange(len(docs), dtype=np.int32)
        sorted_docs, saturations = self._array("docs", len(numbers), np.int32), self._array("sat", len(numbers), _F32)
        sizes = np.array(self._sizes, dtype=np.int64)
        for low, high in _runs(starts):
            keys, values = [], []
            for first, last, first_doc, last_doc in self._document_slices(sizes):
                rank = ranks[numbers[first:last]]
                place = np.repeat(places[first_doc:last_doc], sizes[first_doc:last_doc])
                mine = (rank >= low) & (rank < high)
                rank, place = rank[mine], place[mine]
                keys.append(rank.astype(np.int64) << 32 | docs[place])
                values.append(_F32(1) + counts[first:last][mine].astype(_F32) * inverse[place])
            key, value = np.concatenate(keys), np.concatenate(values)
            order = np.argsort(key, kind="stable")
            span = slice(int(starts[low]), int(starts[high]))
            sorted_docs[span], saturations[span] = key[order] & 0x7FFFFFFF, value[order]
        return sorted_docs, saturations

    def _array(self, name: str, size: int, kind: type) -> np.ndarray:
        if self._scratch is None or not size:
            return np.empty(size, dtype=kind)
        return np.memmap(self._scratch / f"{name}.tmp", kind, "w+", shape=(size,)).view(np.ndarray)

    def _spill(self, scratch: Path) -> None:
        for name, values in (("numbers", self._numbers), ("counts", self._counts)):
            with (scratch / f"{name}.tmp").open("ab") as file:
                values.tofile(file)
            del values[:]

    def _collected(self) -> tuple[np.ndarray, np.ndarray]:
        if self._scratch is None or not (self._scratch / "numbers.tmp").exists():
            return np.array(self._numbers, dtype=np.int32), np.array(self._counts, dtype=np.uint32)
        self._spill(self._scratch)
        numbers, counts = (
            np.memmap(self._scratch / f"{name}.tmp", kind, "r").view(np.ndarray)
            for name, kind in (("numbers", np.int32), ("counts", np.uint32))
        )
        return numbers, counts

    @staticmethod
    def _slices(total: int) -> Iterator[tuple[int, int]]:
        return ((first, min(first + SPILL_AT, total)) for first in range(0, total, SPILL_AT))

    @staticmethod
    def _document_slices(sizes: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
        """Yield (first posting, last, first document, last) of some whole documents at a time."""
        ends = np.concatenate([[0], np.cumsum(sizes)])
        cuts = np.unique(np.append(np.searchsorted(ends, np.arange(0, ends[-1], SPILL_AT)), len(sizes)))
        return ((int(ends[a]), int(ends[b]), int(a), int(b)) for a, b in pairwise(cuts.tolist()))


def _runs(starts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut the terms into runs of about `SORTED_AT_ONCE` postings."""
    cuts = np.searchsorted(starts, np.arange(0, starts[-1], SORTED_AT_ONCE), "left")
    return pairwise(np.unique(np.append(cuts, len(starts) - 1)).tolist())
