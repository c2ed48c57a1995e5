"""What a shop needs of a catalogue and no seed changes: products, ids, requests and postings.

It is made once (`StockBuilder`), either in memory or into a folder that processes then share (`saved`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lightning_mem1.environments.webshop.catalogue.catalogue import Product
from lightning_mem1.environments.webshop.catalogue.ids import Ids
from lightning_mem1.environments.webshop.catalogue.keyed_file import hash64
from lightning_mem1.environments.webshop.goals.goals import Draws, draw
from lightning_mem1.environments.webshop.goals.requests import Requests, RequestsBuilder
from lightning_mem1.environments.webshop.search.postings import Postings, PostingsBuilder
from lightning_mem1.environments.webshop.search.search import search_text


@dataclass(frozen=True)
class Columns:
    """Numbers of N products, in catalogue order.

    Attributes:
        low: (N,) float64, price, or the lower end of its range.
        high: (N,) float64, upper end, NaN without a range.
        categories: (N,) uint64, `hash64` of the category.
        queries: (N,) uint64, `hash64` of the query.
    """

    low: np.ndarray
    high: np.ndarray
    categories: np.ndarray
    queries: np.ndarray


@dataclass(frozen=True)
class Stock:
    """A catalogue without drawn prices; `requests` are the synthetic ones and those by people."""

    ids: Ids
    columns: Columns
    synthetic: Requests
    human: Requests
    postings: Postings

    def requests(self, human: bool) -> Requests:
        """Return what may be asked, by people or not."""
        return self.human if human else self.synthetic

    def draws(self, human: bool, seed: int) -> Draws:
        """Return prices and price bounds of a seed."""
        return draw(self.columns.low, self.columns.high, self.requests(human), seed)

    def products(self, prices: np.ndarray) -> Sequence[Product]:
        """Return the products at drawn prices."""
        raise NotImplementedError


@dataclass(frozen=True)
class MemoryStock(Stock):
    """A catalogue whose products are in memory."""

    kept: tuple[Product, ...]

    @classmethod
    def of(cls, products: Sequence[Product]) -> MemoryStock:
        """Index products."""
        builder = StockBuilder()
        builder.add_all(products)
        return cls(**builder.finish(), kept=tuple(products))  # type: ignore[arg-type]

    def products(self, prices: np.ndarray) -> list[Product]:
        """Return the products at drawn prices."""
        return [replace(product, price=price) for product, price in zip(self.kept, prices.tolist(), strict=True)]


class StockBuilder:
    """Collects products one by one."""

    def __init__(self, scratch: Path | None = None) -> None:
        """With a scratch folder, memory holds no more than ids and a slice of the postings."""
        self._ids: list[str] = []
        self._low, self._high = array("d"), array("d")
        self._categories, self._queries = array("Q"), array("Q")
        self._synthetic, self._human = RequestsBuilder(human=False), RequestsBuilder(human=True)
        self._postings = PostingsBuilder(scratch)
        self._hashes: dict[str, int] = {}

    def add_all(self, products: Iterable[Product]) -> None:
        """Add products in catalogue order."""
        for product in products:
            self.add(product)

    def add(self, product: Product) -> None:
        """Add the next product."""
        place = len(self._ids)
        self._ids.append(product.asin)
        self._low.append(product.prices[0])
        self._high.append(product.prices[1] if len(product.prices) > 1 else float("nan"))
        self._categories.append(self._hash(product.category))
        self._queries.append(self._hash(product.query))
        self._synthetic.add(place, product)
        self._human.add(place, product)
        self._postings.add(search_text(product))

    def finish(self) -> Mapping[str, Ids | Columns | Requests | Postings]:
        """Return the parts of a `Stock`."""
        ids = Ids.of(self._ids)
        self._ids.clear()
        columns = Columns(
            *(np.array(each, dtype=np.float64) for each in (self._low, self._high)),
            *(np.array(each, dtype=np.uint64) for each in (self._categories, self._queries)),
        )
        requests = {"synthetic": self._synthetic.finish(), "human": self._human.finish()}
        return {"ids": ids, "columns": columns, **requests, "postings": self._postings.finish(ids.numbers)}

    def _hash(self, text: str) -> int:
        if len(self._hashes) > 1 << 16:
            self._hashes.clear()
        if text not in self._hashes:
            self._hashes[text] = hash64(text)
        return self._hashes[text]
