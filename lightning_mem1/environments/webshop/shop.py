"""One catalogue with its goals and search index, shared by all episodes played on it.

Everything here is read-only after construction, so any number of environments may share a shop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from lightning_mem1.environments.webshop.catalogue.catalogue import Product, products_from
from lightning_mem1.environments.webshop.catalogue.ids import Ids
from lightning_mem1.environments.webshop.catalogue.keyed_file import hash64
from lightning_mem1.environments.webshop.catalogue.saved import open_stock
from lightning_mem1.environments.webshop.catalogue.stock import MemoryStock, Stock
from lightning_mem1.environments.webshop.generated.generated import generate
from lightning_mem1.environments.webshop.generated.marketplace import restyle
from lightning_mem1.environments.webshop.goals.goals import Goals
from lightning_mem1.environments.webshop.goals.nouns import Nouns
from lightning_mem1.environments.webshop.goals.requests import TEST, TRAIN, VAL
from lightning_mem1.environments.webshop.search.search import SearchIndex
from lightning_mem1.types import Split

SplitRule = Literal["canonical", "by_product"]
NounSource = str | Path | Mapping[str, Sequence[str]]

TEST_GOALS, VAL_GOALS = 500, 1000  # sizes of the reference's test and eval splits

_PARTS = {"test": TEST, "val": VAL, "train": TRAIN}


class Shop:
    """Products, goals and search.

    Attributes:
        products: Products in catalogue order, prices drawn.
        by_asin: The same by id.
        goals: Goals in canonical order (`Goal.index` is the place).
        nouns: Where the reward takes the nouns of a title from.
    """

    def __init__(
        self,
        products: Sequence[Product],
        *,
        human_goals: bool = False,
        seed: int = 0,
        nouns: NounSource = "auto",
    ) -> None:
        """Draw prices and goals and index the products, in memory.

        Args:
            products: Products of `load_products` or `products_from`.
            human_goals: Instructions written by people instead of the synthetic ones.
            seed: Draws prices and price bounds; the order of the goals does not depend on it.
            nouns: See `Nouns`.

        Raises:
            ValueError: There is no product, or no product has an instruction.
        """
        if not products:
            raise ValueError("a shop needs at least one product, got an empty list: check the catalogue")
        self._open(MemoryStock.of(products), human_goals, seed, nouns)

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        human_goals: bool = False,
        seed: int = 0,
        nouns: NounSource = "auto",
        skip_malformed: bool = False,
    ) -> Shop:
        """Open the official files of a folder, whatever their size.

        The first time an index is made and saved next to them, or in the user's cache where the folder is read-only
        (see `saved`); from then on it is mapped into memory and shared by all processes that open it. For
        `skip_malformed` and the errors see `load_products`.
        """
        shop = cls.__new__(cls)
        shop._open(open_stock(folder, skip_malformed=skip_malformed), human_goals, seed, nouns)
        shop._origin = (folder, human_goals, seed, nouns, skip_malformed)
        return shop

    @classmethod
    def generated(cls, seed: int = 0, num_products: int = 1000, *, marketplace: bool = False) -> Shop:
        """Open a generated catalogue; its nouns go by the rule, so that rewards depend on no other package.

        With `marketplace` its listings are as untidy as real ones, see `marketplace.restyle`.
        """
        made = generate(seed, num_products)
        return cls(products_from(*(restyle(*made, seed) if marketplace else made)), seed=seed, nouns="rule")

    def _open(self, stock: Stock, human_goals: bool, seed: int, nouns: NounSource) -> None:
        self._origin: tuple[Any, ...] | None = None
        draws, requests = stock.draws(human_goals, seed), stock.requests(human_goals)
        if not len(requests):
            kind, file = ("human", "items_human_ins*.json") if human_goals else ("synthetic", "items_ins_v2*.json")
            raise ValueError(
                f"a shop needs at least one goal, got no {kind} instruction for {len(draws.prices)} products: "
                f"check that {file} belongs to the same products"
            )
        self.products = stock.products(draws.prices)
        self.by_asin = ByAsin(stock.ids, self.products)
        self.goals = Goals(self.products, requests, draws.bounds)
        self.nouns = Nouns(nouns)
        self._columns, self._requests = stock.columns, requests
        self._index = SearchIndex.of(stock.ids, stock.postings)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Send the place of a saved shop to another process, not its content."""
        return super().__reduce_ex__(protocol) if self._origin is None else (_reopened, self._origin)

    def search(self, query: str, k: int = 50) -> list[tuple[str, float]]:
        """Return the ids and BM25 scores of the best `k` products, best first (a repeated query is remembered)."""
        return self._index.search(query, k)

    def place(self, asin: str) -> int:
        """Return the place of a product in the catalogue; raises KeyError when there is none with this id."""
        return self.by_asin.place(asin)

    def of_category(self, category: str) -> list[int]:
        """Return the places of all products of a department."""
        return np.flatnonzero(self._columns.categories == np.uint64(hash64(category))).tolist()

    def of_query(self, query: str) -> list[int]:
        """Return the places of all products that a query of the catalogue's makers found."""
        return np.flatnonzero(self._columns.queries == np.uint64(hash64(query))).tolist()

    def split(self, split: Split, rule: SplitRule = "canonical") -> Sequence[int]:
        """Return the indices of a split's goals, ascending.

        With ``canonical`` the canonical order is cut at fixed places: test 0-499, val 500-1499 (the authors' eval),
        train 1500 onwards. With fewer than 2,000 goals that would leave next to nothing to train on, so the same order
        is cut in proportion: the first eighth is test, the next quarter val, the rest train (17 goals: 2, 4, 11).
        Goals of one product fall into several splits.

        With ``by_product`` no product is in two splits: an eighth of the products is test, a quarter val, the rest
        train, by a hash of the id (see `requests.part_of`). In a tiny catalogue a split may be empty.

        The three never overlap and never depend on a seed, a worker or a rank.

        Raises:
            ValueError: `split` is not one of train, val, test, or `rule` none of canonical, by_product.
        """
        if split not in _PARTS:
            raise ValueError(f"split must be one of train, val, test, got {split!r}")
        check_split_rule(rule)
        if rule == "by_product":
            return np.flatnonzero(self._requests.goal_parts == _PARTS[split]).tolist()
        return self._cut(split)

    def _cut(self, split: Split) -> range:
        num_goals = len(self.goals)
        small = num_goals < 2000
        num_test = num_goals // 8 if small else TEST_GOALS
        num_val = num_goals // 4 if small else VAL_GOALS
        cuts = {
            "test": range(0, num_test),
            "val": range(num_test, num_test + num_val),
            "train": range(num_test + num_val, num_goals),
        }
        return cuts[split]


def check_split_rule(rule: str) -> None:
    """Raise ValueError for a rule that does not exist."""
    if rule not in get_args(SplitRule):
        raise ValueError(f"goals are split canonical or by_product, got {rule!r}: set data.split_rule to one of them")


class ByAsin(Mapping[str, Product]):
    """Products by id."""

    def __init__(self, ids: Ids, products: Sequence[Product]) -> None:
        self._ids, self._products = ids, products
        self._places: dict[str, int] = {}

    def __getitem__(self, asin: str) -> Product:
        return self._products[self.place(asin)]

    def place(self, asin: str) -> int:
        """Return the place of a product in the catalogue."""
        place = self._places.get(asin)
        if place is None:
            if (place := self._ids.place(asin)) is None:
                raise KeyError(asin)
            if len(self._places) > 1 << 16:
                self._places.clear()
            self._places[asin] = place
        return place

    def __iter__(self) -> Iterator[str]:
        return map(self._ids.name, range(len(self)))

    def __len__(self) -> int:
        return len(self._products)


def _reopened(folder: str | Path, human_goals: bool, seed: int, nouns: NounSource, skip_malformed: bool) -> Shop:
    return Shop.from_folder(folder, human_goals=human_goals, seed=seed, nouns=nouns, skip_malformed=skip_malformed)
