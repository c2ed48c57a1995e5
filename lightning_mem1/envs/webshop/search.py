"""Lucene's BM25 ranking over numpy postings.

Scores are computed in the precision Lucene uses (each term in 32 bits, the sum in 64, the result in 32), because
products with equal scores are ordered by id and rounding decides what is equal.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from lightning_mem1.envs.webshop.analyzer import analyze
from lightning_mem1.envs.webshop.catalogue import Product

K1, B = 0.9, 0.4
MAX_REMEMBERED_QUERIES = 4096

_F32 = np.float32


def search_text(product: Product) -> str:
    """Return what is indexed of a product: title, description, first bullet and options, lower case."""
    options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in product.options.items())
    first_bullet = product.bullets[0] if product.bullets else ""
    return " ".join([product.title, product.description, first_bullet, options]).lower()


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


class SearchIndex:
    """An index built once and searched many times."""

    def __init__(self, ids: Sequence[str], texts: Iterable[str]) -> None:
        """Index one text for each id."""
        order = sorted(range(len(ids)), key=lambda place: ids[place])
        rank = {place: number for number, place in enumerate(order)}
        self._ids = [ids[place] for place in order]  # number -> id; ascending, so ties fall to the lower number
        postings: dict[str, tuple[list[int], list[int]]] = {}
        lengths = np.zeros(len(ids), dtype=np.int64)
        for place, text in enumerate(texts):
            number, counts = rank[place], Counter(analyze(text))
            lengths[number] = counts.total()
            for term, count in counts.items():
                numbers, frequencies = postings.setdefault(term, ([], []))
                numbers.append(number)
                frequencies.append(count)
        self._freeze(postings, lengths)

    def _freeze(self, postings: dict[str, tuple[list[int], list[int]]], lengths: np.ndarray) -> None:
        """Work out of each posting the part of its score that no query changes."""
        num_docs = max(int((lengths > 0).sum()), 1)
        average = _F32(max(lengths.sum() / num_docs, 1.0))
        quantised = np.array([quantised_length(int(length)) for length in lengths], dtype=_F32)
        inverse = _F32(1) / (_F32(K1) * ((_F32(1) - _F32(B)) + _F32(B) * quantised / average))
        self._postings: dict[str, tuple[np.ndarray, np.ndarray, np.float32]] = {}
        for term, (numbers, frequencies) in postings.items():
            docs = np.array(numbers, dtype=np.int32)
            saturation = _F32(1) + np.array(frequencies, dtype=_F32) * inverse[docs]
            idf = _F32(math.log(1 + (num_docs - len(docs) + 0.5) / (len(docs) + 0.5)))
            self._postings[term] = (docs, saturation, idf)
        self._remembered: dict[tuple[str, int], list[tuple[str, float]]] = {}

    def search(self, query: str, k: int = 50) -> list[tuple[str, float]]:
        """Return the ids and scores of the best `k` texts, best first, equal scores by id.

        Scores are rounded to 4 decimals and equal ones set apart by 1e-6, as Anserini reports them.
        """
        key = (query, k)
        if key not in self._remembered:
            if len(self._remembered) >= MAX_REMEMBERED_QUERIES:
                self._remembered.pop(next(iter(self._remembered)))
            self._remembered[key] = self._search(query, k)
        return list(self._remembered[key])

    def _search(self, query: str, k: int) -> list[tuple[str, float]]:
        totals = np.zeros(len(self._ids), dtype=np.float64)
        for term, count in Counter(analyze(query)).items():
            if term in self._postings:
                docs, saturation, idf = self._postings[term]
                weight = _F32(count) * idf
                totals[docs] += weight - weight / saturation
        found = np.flatnonzero(totals)
        scores = totals[found].astype(_F32)
        if len(found) > 4 * k:  # sort only what can be among the first k
            keep = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
            found, scores = found[keep], scores[keep]
        best = np.argsort(-scores, kind="stable")[:k]
        return _set_apart([(self._ids[found[i]], float(scores[i])) for i in best])


def _set_apart(hits: list[tuple[str, float]]) -> list[tuple[str, float]]:
    rounded = [(doc, round(value, 4)) for doc, value in hits]
    result, equal = [], 0
    for place, (doc, value) in enumerate(rounded):
        equal = equal + 1 if place and value == rounded[place - 1][1] else 0
        result.append((doc, round(value - 1e-6 * equal, 6)))
    return result
