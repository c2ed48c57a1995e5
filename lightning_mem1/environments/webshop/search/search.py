"""Lucene's BM25 ranking over numpy postings.

Scores are computed in the precision Lucene uses (each term in 32 bits, the sum in 64, the result in 32), because
products with equal scores are ordered by id and rounding decides what is equal. In a large index only the rare terms
of a query are looked at in full; the result is the same to the last bit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from lightning_mem1.environments.webshop.catalogue.catalogue import Product
from lightning_mem1.environments.webshop.catalogue.ids import Ids
from lightning_mem1.environments.webshop.search.analyzer import analyze
from lightning_mem1.environments.webshop.search.postings import Postings, PostingsBuilder

MAX_REMEMBERED_QUERIES = 4096
PRUNE_FROM = 20_000  # postings of a query; with fewer, leaving some out costs more than it saves

_F32 = np.float32
_MARGIN = 1e-3  # more than rounding can move a score


def search_text(product: Product) -> str:
    """Return what is indexed of a product: title, description, first bullet and options, lower case."""
    options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in product.options.items())
    first_bullet = product.bullets[0] if product.bullets else ""
    return " ".join([product.title, product.description, first_bullet, options]).lower()


class _Asked(NamedTuple):
    """One term of a query: its postings, its weight, the most it can add to a score."""

    docs: np.ndarray
    saturations: np.ndarray
    weight: np.float32
    most: float

    def parts(self) -> np.ndarray:
        """Return what the term adds to the score of each of its documents."""
        return self.weight - self.weight / self.saturations

    def parts_of(self, found: np.ndarray) -> np.ndarray:
        """Return what the term adds to the scores of given documents (ascending), 0 where it is absent."""
        places = np.minimum(np.searchsorted(self.docs, found), len(self.docs) - 1)
        parts = self.weight - self.weight / self.saturations[places]
        return np.where(self.docs[places] == found, parts, _F32(0))


class SearchIndex:
    """An index built once and searched many times."""

    def __init__(self, ids: Sequence[str], texts: Iterable[str]) -> None:
        """Index one text for each id."""
        builder, sorted_ids = PostingsBuilder(), Ids.of(ids)
        for text in texts:
            builder.add(text)
        self._open(sorted_ids, builder.finish(sorted_ids.numbers))

    @classmethod
    def of(cls, ids: Ids, postings: Postings) -> SearchIndex:
        """Return an index over postings that are there already."""
        index = cls.__new__(cls)
        index._open(ids, postings)
        return index

    def _open(self, ids: Ids, postings: Postings) -> None:
        self._ids, self._postings = ids, postings
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
        asked = [self._asked(term, count) for term, count in Counter(analyze(query)).items()]
        found, scores = _scores([each for each in asked if each], len(self._ids.names), k)
        if len(found) > 4 * k:  # sort only what can be among the first k
            keep = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
            found, scores = found[keep], scores[keep]
        best = np.argsort(-scores, kind="stable")[:k]
        return _set_apart([(self._ids.name(int(found[i])), float(scores[i])) for i in best])

    def _asked(self, term: str, count: int) -> _Asked | None:
        postings = self._postings
        if (number := postings.find(term)) < 0:
            return None
        start, end = int(postings.starts[number]), int(postings.starts[number + 1])
        num_docs = int(postings.counted[0])
        weight = _F32(count) * _F32(math.log(1 + (num_docs - (end - start) + 0.5) / (end - start + 0.5)))
        most = float(weight - weight / postings.tops[number])
        return _Asked(postings.docs[start:end], postings.saturations[start:end], weight, most)


def _scores(asked: Sequence[_Asked], num_docs: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the documents that may be among the best `k`, ascending, and their scores."""
    if sum(len(each.docs) for each in asked) < PRUNE_FROM:
        totals = np.zeros(num_docs, dtype=np.float64)
        for each in asked:
            totals[each.docs] += each.parts()
        found = np.flatnonzero(totals)
        return found, totals[found].astype(_F32)
    found = _candidates(asked, num_docs, k)
    exact = np.zeros(len(found), dtype=np.float64)
    for each in asked:  # in the order of the query, so that sums round alike
        exact += each.parts_of(found)
    return found, exact.astype(_F32)


def _candidates(asked: Sequence[_Asked], num_docs: int, k: int) -> np.ndarray:
    """Return the documents that may be among the best `k`, ascending (MaxScore: Turtle and Flood, 1995).

    Rare terms come first and add up in full. Once what the terms to come can add (`rest`) is less than the k-th best
    score so far, no other document can come in; those found are looked up, and dropped when `rest` cannot save them.
    """
    totals, found = np.zeros(num_docs, dtype=np.float64), None
    rest = sum(each.most for each in asked)
    best = 0.0  # the most that any document can have so far
    partial = totals
    for each in sorted(asked, key=lambda one: len(one.docs)):
        rest, best = rest - each.most, best + each.most
        if found is not None:
            partial = partial + each.parts_of(found)
        else:
            totals[each.docs] += each.parts()
            if best > rest:
                found = np.flatnonzero(totals)
                partial = totals[found]
                if _kth(partial, k) <= rest + _MARGIN:
                    found = None
        if found is not None:
            keep = partial + rest + _MARGIN >= _kth(partial, k)
            found, partial = found[keep], partial[keep]
    return np.flatnonzero(totals) if found is None else found


def _kth(scores: np.ndarray, k: int) -> float:
    """Return the k-th largest score, 0.0 when there are fewer."""
    return float(np.partition(scores, len(scores) - k)[len(scores) - k]) if len(scores) >= k else 0.0


def _set_apart(hits: list[tuple[str, float]]) -> list[tuple[str, float]]:
    rounded = [(doc, round(value, 4)) for doc, value in hits]
    result, equal = [], 0
    for place, (doc, value) in enumerate(rounded):
        equal = equal + 1 if place and value == rounded[place - 1][1] else 0
        result.append((doc, round(value - 1e-6 * equal, 6)))
    return result
