"""What shoppers may be asked, as numbers: each request is a product's instruction with its combinations of options.

A catalogue of a million products has millions of goals, so goals are made when they are asked for (`goals.Goals`);
this table says which product, which instruction and which combination stand behind the goal of an index.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np

from lightning_mem1.environments.webshop.catalogue.catalogue import Product

SHUFFLE_SEED = 233  # the reference's constant: never change it, or every published split moves
SYNTHETIC = -1  # number of a product's synthetic instruction; those by people count from 0
MAX_GOALS = 2**31 - 1

TEST, VAL, TRAIN = 0, 1, 2  # parts of `Requests.parts`


@dataclass(frozen=True)
class Requests:
    """All requests of a catalogue, in catalogue order, R of them.

    Attributes:
        places: (R,) int32, place of the product.
        numbers: (R,) int32, number of the instruction, `SYNTHETIC` or that of one written by a person.
        starts: (R + 1,) int64; request r has the goals starts[r] to starts[r + 1] before they are shuffled.
        weights: (R,) float64, sampling weight of each of its goals.
        parts: (R,) uint8, the part of the products that its product is in, see `part_of`.
        order: (G,) int32; goal `order[i]` of the unshuffled ones has index i in the canonical order.
    """

    places: np.ndarray
    numbers: np.ndarray
    starts: np.ndarray
    weights: np.ndarray
    parts: np.ndarray
    order: np.ndarray

    def __len__(self) -> int:
        return len(self.order)

    def find(self, index: int) -> tuple[int, int]:
        """Return the request of a goal and which of the request's goals it is."""
        goal = int(self.order[index])
        request = int(np.searchsorted(self.starts, goal, "right")) - 1
        return request, goal - int(self.starts[request])

    @cached_property
    def goal_parts(self) -> np.ndarray:
        """(G,) uint8: the part that each goal's product is in, by index."""
        return np.repeat(self.parts, np.diff(self.starts))[self.order]


def part_of(asin: str) -> int:
    """Return the part that a product is in: an eighth is test, a quarter val, the rest train.

    It depends on the id alone, so that a product stays in its part in every catalogue, for every kind of goals.
    """
    eighth = sha256(asin.encode("utf-8", "surrogatepass")).digest()[0] % 8
    return TEST if eighth == 0 else VAL if eighth < 3 else TRAIN


class RequestsBuilder:
    """Collects the requests of products that come one by one."""

    def __init__(self, human: bool) -> None:
        self._human = human
        self._places, self._numbers, self._sizes, self._parts = array("i"), array("i"), array("q"), array("B")
        self._words: dict[str, int] = {}  # attribute -> number
        self._attributes, self._ends = array("i"), array("q", [0])

    def add(self, place: int, product: Product) -> None:
        """Add what may be asked of one product."""
        for number, attributes, size in _asked(product, self._human):
            self._places.append(place)
            self._numbers.append(number)
            self._sizes.append(size)
            self._parts.append(part_of(product.asin))
            self._attributes.extend(self._words.setdefault(word, len(self._words)) for word in attributes)
            self._ends.append(len(self._attributes))

    def finish(self) -> Requests:
        """Weigh and shuffle."""
        sizes = np.array(self._sizes, dtype=np.int64)
        if (total := int(sizes.sum())) > MAX_GOALS:
            raise ValueError(f"a catalogue may have at most {MAX_GOALS:,} goals, got {total:,}: split the catalogue")
        order = list(range(total))
        random.Random(SHUFFLE_SEED).shuffle(order)
        return Requests(
            places=np.array(self._places, dtype=np.int32),
            numbers=np.array(self._numbers, dtype=np.int32),
            starts=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            weights=np.ones(len(sizes)) if self._human else self._weights(sizes),
            parts=np.array(self._parts, dtype=np.uint8),
            order=np.array(order, dtype=np.int32),
        )

    def _weights(self, sizes: np.ndarray) -> np.ndarray:
        """Weigh a request by the mean over its attributes of 1 / goals that ask for the attribute."""
        attributes, ends = np.array(self._attributes, dtype=np.int32), np.array(self._ends)
        goals_of_each = np.repeat(sizes, np.diff(ends))
        counts = np.bincount(attributes, goals_of_each, len(self._words)).astype(np.int64).tolist()
        spans = zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        return np.array([_weight([counts[a] for a in attributes[start:end]]) for start, end in spans])


def _weight(counts: Sequence[int]) -> float:
    return sum(1.0 / count if count else 0.0 for count in counts) / len(counts)


def _asked(product: Product, human: bool) -> list[tuple[int, Sequence[str], int]]:
    """Return (number of the instruction, attributes, number of goals) of each request for a product."""
    if human:
        texts = enumerate(product.human_instructions)
        return [(number, text.attributes, 1) for number, text in texts if text.attributes]
    if product.instruction is None or not product.instruction_attributes:
        return []
    combinations = math.prod(len(values) for values in product.options.values())
    return [(SYNTHETIC, product.instruction_attributes, combinations)]
