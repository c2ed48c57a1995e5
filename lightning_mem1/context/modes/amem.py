"""Memory mode ``amem``: earlier turns are notes, and those that have to do with the latest one are retrieved.

After A-MEM (arXiv 2502.12110). Deviations: a note is a whole turn as it was written and replied to, where the paper has
a language model add keywords, tags and a description; notes are not linked and never rewritten; and unless
``model.memory.note_embedding`` names a sentence encoder, as the paper has one, a note's embedding is the TF-IDF vector
of its token ids. So no language model but the policy is asked, nothing is decoded, the same ids always find the same
notes, and a policy can be trained in this mode. As in the paper the notes nearest by cosine are retrieved.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import mul
from typing import ClassVar

from lightning_mem1.context.encoder import ContextEncoder
from lightning_mem1.context.memory import MemoryMode, Runs, check_window, whole
from lightning_mem1.context.sentence_encoder import Encoder
from lightning_mem1.types import Turn

Vector = Mapping[int, float]


@dataclass(frozen=True)
class Amem(MemoryMode):
    """The `window` earlier turns that have most to do with the last one, and the last one.

    The query is the last turn; the prompt with its questions always stays.

    Args:
        window: Earlier turns that are retrieved, at least 1.
        note_embedding: Folder or hub name of the sentence encoder that notes are compared by (extra ``dense``); empty
            for TF-IDF over token ids. The rollout then leaves on each turn its embedding.
    """

    window: int = 2
    note_embedding: str = ""
    word: ClassVar[str] = "amem"

    def __post_init__(self) -> None:
        check_window(self.window)

    def context(self, turns: Sequence[Turn]) -> Runs:
        """The retrieved turns in the order of time, then the last one."""
        if not turns:
            return []
        if all(turn.embedding for turn in turns):
            chosen = nearest(dots([turn.embedding for turn in turns[:-1]], turns[-1].embedding), self.window)
        else:
            *notes, query = ([*turn.ids, *turn.information_ids] for turn in turns)
            chosen = related(notes, query, self.window)
        return whole([*(turns[number] for number in chosen), turns[-1]])

    def annotator(self, encoder: ContextEncoder) -> Callable[[Turn], None] | None:
        """Leaves on a turn the embedding of what was written and replied; None without a sentence encoder."""
        if not self.note_embedding:
            return None
        embed = _sentence_encoder(self.note_embedding)

        def annotate(turn: Turn) -> None:
            note = encoder.decode([*turn.ids, *turn.information_ids])
            turn.embedding = tuple(map(float, embed([note])[0]))

        return annotate


@lru_cache(maxsize=1)
def _sentence_encoder(model: str) -> Encoder:
    return Encoder(model)


def related(notes: Sequence[Sequence[int]], query: Sequence[int], k: int) -> list[int]:
    """Numbers of the k notes nearest to a query by the cosine of their embeddings, in ascending order.

    Of equally near notes the newer ones are taken. For notes ``[1, 2]``, ``[3, 9]``, ``[4, 9]`` and the query
    ``[5, 3, 9]``: 3 is in two of the four, 9 in three of them, so the second note is nearest and then the third.

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

    What is in every text (the tags) weighs 0.

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
