"""Tasks of the shop as a LightningDataModule."""

from __future__ import annotations

from typing import Literal

from lightning_mem1.data.task_data import TaskDataModule
from lightning_mem1.types import TaskSource


class WebShopData(TaskDataModule):
    """Shopping tasks of a WebShop catalogue.

    Args:
        catalogue: Folder with the official files (items_shuffle*.json and so on); null for the generated catalogue.
        split: canonical (the published goals of test, eval and train) or by_product (no product in two splits).
        max_turns: Turns the agent has.
        results_per_page: Products on a page of search results.
        strict: Behave like the public WebShop to the letter.
        human_goals: Take goals from the human instructions instead of the synthetic ones.
        nouns: How the reward finds the nouns of official titles: auto (spaCy if it is there, else the rule), rule,
            spacy, or a JSON file of pinned nouns; the generated catalogue always takes the rule.
        skip_malformed: Skip and count malformed products of official files instead of refusing the file.
        num_products: Size of the generated catalogue.
        marketplace: Generate listings as untidy as real ones: long titles, many options, ids that begin alike.
        tasks_per_step: Different tasks in one rl_step, over all ranks.
        group_size: Episodes of each task.
        num_rl_steps: Collect-and-update iterations of the whole run, resumed parts included; null for no end.
        num_val_tasks: Validation tasks, spread evenly over the split; the same ones each time.
        val_batch_size: Validation tasks played at once on one rank.
        seed: Of the order of tasks; null takes `seed_everything`'s.
    """

    def __init__(
        self,
        catalogue: str | None = None,
        split: Literal["canonical", "by_product"] = "canonical",
        max_turns: int = 10,
        results_per_page: int = 10,
        strict: bool = False,
        human_goals: bool = False,
        nouns: str = "auto",
        skip_malformed: bool = False,
        num_products: int = 1000,
        marketplace: bool = False,
        tasks_per_step: int = 8,
        group_size: int = 8,
        num_rl_steps: int | None = 40,
        num_val_tasks: int = 100,
        val_batch_size: int = 128,
        seed: int | None = None,
    ) -> None:
        super().__init__(None, tasks_per_step, group_size, num_rl_steps, num_val_tasks, val_batch_size, seed)
        self.catalogue, self.split = catalogue, split
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
            split=self.split,
            max_turns=self.max_turns,
            results_per_page=self.results_per_page,
            strict=self.strict,
            human_goals=self.human_goals,
            nouns=self.nouns,
            skip_malformed=self.skip_malformed,
            num_products=self.num_products,
            marketplace=self.marketplace,
        )
