"""Product ids in ascending order: the numbers that the search index knows products by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ids:
    """Ids of N products.

    Attributes:
        names: (N,) UTF-8 bytes, ascending, so that ties in a search fall to the lower number.
        places: (N,) int32, number -> place in the catalogue.
    """

    names: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, ids: Sequence[str]) -> Ids:
        """Sort ids that are in catalogue order."""
        names = np.array([each.encode("utf-8", "surrogatepass") for each in ids], dtype=bytes)
        places = np.argsort(names, kind="stable").astype(np.int32)
        return cls(names[places], places)

    @property
    def numbers(self) -> np.ndarray:
        """(N,) int32, place in the catalogue -> number."""
        numbers = np.empty(len(self.places), dtype=np.int32)
        numbers[self.places] = np.arange(len(self.places), dtype=np.int32)
        return numbers

    def name(self, number: int) -> str:
        """Return the id with a number."""
        return self.names[number].decode("utf-8", "surrogatepass")

    def place(self, name: str) -> int | None:
        """Return the place of an id in the catalogue, None when there is no such id."""
        wanted = np.bytes_(name.encode("utf-8", "surrogatepass"))
        number = int(np.searchsorted(self.names, wanted))
        found = number < len(self.names) and self.names[number] == wanted
        return int(self.places[number]) if found else None
