"""Tasks of the shop as a LightningDataModule."""

from __future__ import annotations

from typing import Any, ClassVar

from lightning_mem1.checks import Range, Ranges, check_numbers
from lightning_mem1.data.task_data import TaskDataModule
from lightning_mem1.environments.webshop.shop import SplitRule
from lightning_mem1.types import TaskSource


class WebShopData(TaskDataModule):
    """Shopping tasks of a WebShop catalogue.

    Args:
        catalogue: Folder with the official files (items_shuffle*.json and so on); null for the generated catalogue.
        split_rule: canonical (the published goals of test, eval and train) or by_product (no product in two splits).
        max_turns: Turns the agent has.
        results_per_page: Products on a page of search results.
        strict: Behave like the public WebShop to the letter.
        human_goals: Take goals from the human instructions instead of the synthetic ones.
        nouns: How the reward finds the nouns of official titles: auto (spaCy if it is there, else the rule), rule,
            spacy, or a JSON file of pinned nouns; the generated catalogue always takes the rule.
        skip_malformed: Skip and count malformed products of official files instead of refusing the file.
        num_products: Size of the generated catalogue.
        marketplace: Generate listings as untidy as real ones: long titles, many options, ids that begin alike.
        stream: How tasks are fed, see `TaskDataModule`: tasks_per_step, group_size, num_rl_steps and so on.
    """

    ranges: ClassVar[Ranges] = {
        "max_turns": Range(1),
        "results_per_page": Range(1, 10**6),
        "num_products": Range(1, 10**7),
    }

    def __init__(
        self,
        catalogue: str | None = None,
        split_rule: SplitRule = "canonical",
        max_turns: int = 10,
        results_per_page: int = 10,
        strict: bool = False,
        human_goals: bool = False,
        nouns: str = "auto",
        skip_malformed: bool = False,
        num_products: int = 1000,
        marketplace: bool = False,
        **stream: Any,
    ) -> None:
        check_numbers("data", WebShopData, locals())
        super().__init__(source=None, **stream)
        self.catalogue, self.split_rule = catalogue, split_rule
        self.max_turns, self.results_per_page = max_turns, results_per_page
        self.strict, self.human_goals, self.num_products = strict, human_goals, num_products
        self.nouns, self.skip_malformed, self.marketplace = nouns, skip_malformed, marketplace

    def files(self) -> list[str]:
        """The catalogue's folder."""
        return [self.catalogue] if self.catalogue else []

    def make_source(self) -> TaskSource:
        """Load or generate the catalogue, which takes seconds."""
        from lightning_mem1.environments.webshop.tasks import ShopTasks

        return ShopTasks(
            catalogue=self.catalogue,
            split_rule=self.split_rule,
            max_turns=self.max_turns,
            results_per_page=self.results_per_page,
            strict=self.strict,
            human_goals=self.human_goals,
            nouns=self.nouns,
            skip_malformed=self.skip_malformed,
            num_products=self.num_products,
            marketplace=self.marketplace,
        )
