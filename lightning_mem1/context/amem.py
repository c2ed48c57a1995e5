"""A store of notes for memory mode ``amem``: which earlier turns have to do with the latest one.

A note is a turn, as the ids that were written and replied. By default its embedding is the TF-IDF vector of its token
ids, so nothing is decoded, no second model is asked, and the same ids always find the same notes; where the rollout had
a model embed it (`rollout.note_embedding`), that is the embedding, and it is kept with the turn.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import mul

Vector = Mapping[int, float]


def related(notes: Sequence[Sequence[int]], query: Sequence[int], k: int) -> list[int]:
    """Numbers of the k notes nearest to a query by the cosine of their embeddings, in ascending order.

    Of equally near notes the newer ones are taken. For notes ``[1, 2]``, ``[3, 9]``, ``[4, 9]`` and the query
    ``[5, 3, 9]``: 3 stands in two of the four, 9 in three of them, so the second note is nearest and then the third.

    Args:
        notes: Ids of each note, oldest first.
        query: Ids of what they are compared with.
        k: Most notes that are returned.
    """
    if k >= len(notes):
        return list(range(len(notes)))
    wanted, *kept = embeddings([query, *notes])
    return nearest([_cosine(wanted, vector) for vector in kept], k)


def nearest(nearness: Sequence[float], k: int) -> list[int]:
    """Numbers of the k largest, in ascending order; of equal ones the later are taken.

    >>> nearest([0.5, 0.1, 0.5, 0.9], 2)
    [2, 3]
    """
    ranked = sorted(range(len(nearness)), key=lambda number: (-nearness[number], -number))
    return sorted(ranked[:k])


def dots(vectors: Sequence[Sequence[float]], query: Sequence[float]) -> list[float]:
    """Dot product of each vector with the query; of unit vectors it is the cosine."""
    return [sum(map(mul, vector, query)) for vector in vectors]


def embeddings(texts: Sequence[Sequence[int]]) -> list[dict[int, float]]:
    """TF-IDF vector of each text over these texts: ``count * log(n / texts that hold the id)`` by id.

    What stands in every text (the tags) weighs 0.

    >>> embeddings([[1, 2, 2], [1]])
    [{1: 0.0, 2: 1.3862943611198906}, {1: 0.0}]
    """
    counts = [_counts(tuple(ids)) for ids in texts]
    holders = Counter(each for count in counts for each in count)
    return [{each: number * math.log(len(texts) / holders[each]) for each, number in c.items()} for c in counts]


@lru_cache(maxsize=4096)
def _counts(ids: tuple[int, ...]) -> Counter[int]:
    return Counter(ids)


def _cosine(one: Vector, other: Vector) -> float:
    """0 where one of them is all zeros."""
    norms = math.hypot(*one.values()) * math.hypot(*other.values())
    return sum(weight * other[each] for each, weight in one.items() if each in other) / norms if norms else 0.0
