"""One catalogue with its goals and search index, shared by all episodes played on it.

Everything here is read-only after construction, so any number of environments may share a shop.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_mem1.envs.webshop.catalogue import Product, load_products
from lightning_mem1.envs.webshop.goals import Goal, make_goals, with_prices
from lightning_mem1.envs.webshop.nouns import Nouns
from lightning_mem1.envs.webshop.search import SearchIndex, search_text
from lightning_mem1.types import Split

TEST_GOALS, VAL_GOALS = 500, 1000  # sizes of the reference's test and eval splits


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
        nouns: str | Path | Mapping[str, Sequence[str]] = "auto",
    ) -> None:
        """Draw prices and goals and index the products.

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
        rng = random.Random(seed)
        self.products = with_prices(products, rng)
        self.by_asin = {product.asin: product for product in self.products}
        self.goals: list[Goal] = make_goals(self.products, rng, human_goals)
        if not self.goals:
            kind, file = ("human", "items_human_ins*.json") if human_goals else ("synthetic", "items_ins_v2*.json")
            raise ValueError(
                f"a shop needs at least one goal, got no {kind} instruction for {len(products)} products: "
                f"check that {file} belongs to the same products"
            )
        self.nouns = Nouns(nouns)
        self._index = SearchIndex([product.asin for product in self.products], map(search_text, self.products))

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        human_goals: bool = False,
        seed: int = 0,
        nouns: str | Path | Mapping[str, Sequence[str]] = "auto",
        skip_malformed: bool = False,
    ) -> Shop:
        """Open the official files of a folder; see `load_products` for `skip_malformed` and the errors."""
        products = load_products(folder, skip_malformed=skip_malformed)
        return cls(products, human_goals=human_goals, seed=seed, nouns=nouns)

    def search(self, query: str, k: int = 50) -> list[tuple[str, float]]:
        """Return the ids and BM25 scores of the best `k` products, best first (a repeated query is remembered)."""
        return self._index.search(query, k)

    def split(self, split: Split) -> range:
        """Return the indices of a split's goals.

        The canonical order is cut at fixed places: test 0-499, val 500-1499 (the authors' eval), train 1500
        onwards. With fewer than 2,000 goals that would leave next to nothing to train on, so the same order is
        cut in proportion: the first eighth is test, the next quarter val, the rest train (17 goals: 2, 4, 11).
        The three never overlap and never depend on a seed, a worker or a rank.

        Raises:
            ValueError: `split` is not one of train, val, test.
        """
        num_goals = len(self.goals)
        small = num_goals < 2000
        num_test = num_goals // 8 if small else TEST_GOALS
        num_val = num_goals // 4 if small else VAL_GOALS
        cuts = {
            "test": range(0, num_test),
            "val": range(num_test, num_test + num_val),
            "train": range(num_test + num_val, num_goals),
        }
        if split not in cuts:
            raise ValueError(f"split must be one of train, val, test, got {split!r}")
        return cuts[split]
