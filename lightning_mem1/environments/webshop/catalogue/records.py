"""Products in a file: one JSON record each, read when it is asked for."""

from __future__ import annotations

import json
import mmap
from array import array
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import BinaryIO, overload

import numpy as np

from lightning_mem1.environments.webshop.catalogue.catalogue import HumanInstruction, Product

MAX_REMEMBERED = 4096
MAX_REMEMBERED_BYTES = 1 << 14  # longer records are read again each time

_NAMES = [field.name for field in fields(Product)]
_TUPLES = [
    place
    for place, name in enumerate(_NAMES)
    if name in ("bullets", "prices", "attributes", "instruction_attributes", "human_instructions")
]
_PRICE, _OPTIONS, _HUMAN = (_NAMES.index(name) for name in ("price", "options", "human_instructions"))


def to_record(product: Product) -> bytes:
    """Return a product as JSON: the list of its fields."""
    values = [getattr(product, name) for name in _NAMES]
    values[_OPTIONS] = dict(product.options)
    values[_HUMAN] = [[each.text, each.attributes, each.options] for each in product.human_instructions]
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def from_record(record: bytes, price: float) -> Product:
    """Return the product of a record, at another price."""
    values = json.loads(record)
    for place in _TUPLES:
        values[place] = tuple(values[place])
    values[_PRICE] = price
    values[_OPTIONS] = {name: tuple(each) for name, each in values[_OPTIONS].items()}
    values[_HUMAN] = tuple(HumanInstruction(text, tuple(asked), tuple(own)) for text, asked, own in values[_HUMAN])
    return Product(*values)


class RecordWriter:
    """Appends products to a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._ends = file, array("q", [0])

    def add(self, product: Product) -> None:
        """Write one product."""
        record = to_record(product)
        self._file.write(record)
        self._ends.append(self._ends[-1] + len(record))

    def ends(self) -> np.ndarray:
        """(N + 1,) int64: where each record begins; the last is where the last one ends."""
        return np.array(self._ends, dtype=np.int64)


class RecordedProducts(Sequence[Product]):
    """The products of a file, with the prices that were drawn for them."""

    def __init__(self, path: Path, ends: np.ndarray, prices: np.ndarray) -> None:
        with path.open("rb") as file:
            self._records = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._ends, self._prices = ends, prices
        self._remembered: dict[int, Product] = {}

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> Product: ...
    @overload
    def __getitem__(self, place: slice) -> list[Product]: ...
    def __getitem__(self, place: int | slice) -> Product | list[Product]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        if place in self._remembered:
            return self._remembered[place]
        return self._read(range(len(self))[place])  # also checks it

    def _read(self, place: int) -> Product:
        start, end = int(self._ends[place]), int(self._ends[place + 1])
        product = from_record(self._records[start:end], float(self._prices[place]))
        if end - start <= MAX_REMEMBERED_BYTES:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.pop(next(iter(self._remembered)))
            self._remembered[place] = product
        return product
