"""Shopping tasks over the generated catalogue or a folder of official WebShop files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from lightning_mem1.checks import SEED, Range, Ranges, check_numbers
from lightning_mem1.environments.webshop import Shop, WebShopEnv
from lightning_mem1.environments.webshop.baselines import oracle, rule_baseline
from lightning_mem1.environments.webshop.goals.reward import reachable
from lightning_mem1.environments.webshop.shop import SplitRule, check_split_rule
from lightning_mem1.types import Env, Objective, Split, Task


class ShopTasks:
    """One task per goal of a shop; satisfies `types.TaskSource`.

    Attributes:
        shop: The catalogue with its goals and search index, shared by all environments.
    """

    ranges: ClassVar[Ranges] = {
        "max_turns": Range(1),
        "results_per_page": Range(1, 10**6),
        "seed": SEED,
        "num_products": Range(1, 10**7),
    }

    def __init__(
        self,
        catalogue: str | None = None,
        *,
        split_rule: SplitRule = "canonical",
        max_turns: int = 10,
        results_per_page: int = 10,
        strict: bool = False,
        human_goals: bool = False,
        nouns: str = "auto",
        skip_malformed: bool = False,
        seed: int = 0,
        num_products: int = 1000,
        marketplace: bool = False,
    ) -> None:
        """Open or generate the shop.

        Args:
            catalogue: Folder with the official files, None for a generated catalogue.
            split_rule: ``canonical``: the reference's goals of test, eval and train; ``by_product``: no product
                occurs in two splits. See `Shop.split`.
            max_turns: Turns per task.
            results_per_page: Products on a page of results.
            strict: The reference environment to the letter.
            human_goals: Instructions written by people (official files only).
            nouns: Where the reward takes the nouns of official titles from, see `Nouns`: auto, rule, spacy or a JSON
                file. The generated catalogue takes the rule, so that its rewards depend on no other package.
            skip_malformed: Skip and count malformed products of official files instead of raising.
            seed: Draws the generated catalogue, the prices and the price bounds.
            num_products: Size of the generated catalogue; official files are taken whole.
            marketplace: The generated catalogue with listings as untidy as real ones.

        Raises:
            FileNotFoundError: The folder or one of its files is missing.
            ValueError: A file is malformed; human goals or other nouns are asked of the generated catalogue, or untidy
                listings of official files.
        """
        check_numbers("data.source", ShopTasks, locals())
        if catalogue is None and human_goals:
            raise ValueError(
                "human_goals needs a catalogue folder with items_human_ins*.json, got the generated catalogue: "
                "give data.catalogue or drop human_goals"
            )
        if catalogue is None and nouns not in ("auto", "rule"):
            raise ValueError(
                f"the generated catalogue takes its nouns by the rule, got nouns {nouns!r}: give data.catalogue or "
                "drop data.nouns"
            )
        if catalogue is not None and marketplace:
            raise ValueError(
                f"marketplace restyles the generated catalogue, got the files of {catalogue}: "
                "drop data.marketplace or data.catalogue"
            )
        check_split_rule(split_rule)
        self.max_turns = max_turns
        self.results_per_page = results_per_page
        self.strict = strict
        if catalogue is None:
            self.shop = Shop.generated(seed, num_products, marketplace=marketplace)
        else:
            self.shop = Shop.from_folder(
                Path(catalogue), human_goals=human_goals, seed=seed, nouns=nouns, skip_malformed=skip_malformed
            )
        self.split_rule = split_rule
        self._goals: dict[Split, Sequence[int]] = {}  # indices of each split's goals

    def size(self, split: Split) -> int:
        """Number of goals in a split."""
        return len(self._split(split))

    def task(self, split: Split, index: int) -> Task:
        """Return the task of goal ``shop.split(split, ...)[index]``; raises IndexError outside the split."""
        goals = self._split(split)
        if not 0 <= index < len(goals):
            raise IndexError(f"task index must be 0 to {len(goals) - 1} in split {split!r}, got {index}")
        goal = self.shop.goals[goals[index]]
        return Task(
            id=f"webshop/{'' if self.split_rule == 'canonical' else f'{self.split_rule}/'}{split}/{index}",
            prompt=f"Instruction: {goal.instruction}",
            objectives=(Objective(goal.instruction),),
            max_turns=self.max_turns,
            data={"goal": goal.index},
        )

    def env(self, task: Task) -> Env:
        """Return a fresh shop visit for a task of this source."""
        return self._visit(task)

    def _visit(self, task: Task) -> WebShopEnv:
        goal = self.shop.goals[task.data["goal"]]
        return WebShopEnv(self.shop, goal, strict=self.strict, results_per_page=self.results_per_page)

    def baselines(self, split: Split, indices: Sequence[int]) -> dict[str, float]:
        """Mean reward of the rule and the oracle on tasks of a split, both within `max_turns`, and what is reachable.

        The oracle's is what can be reached by somebody who knows the product and finds it by its title; reachable is
        the most that any choice of the product's options is worth, however many turns it takes.
        """
        shoppers = {"rule": rule_baseline, "oracle": oracle}
        tasks = [self.task(split, index) for index in indices]
        scores = {
            name: sum(shop(self._visit(t), self.max_turns).reward for t in tasks) / max(1, len(tasks))
            for name, shop in shoppers.items()
        }
        return {**scores, "reachable": sum(map(self.reachable, tasks)) / max(1, len(tasks))}

    def reachable(self, task: Task) -> float:
        """Return the most that buying the product of a task's goal can be worth."""
        goal = self.shop.goals[task.data["goal"]]
        return reachable(goal, self.shop.by_asin[goal.asin], self.strict, self.shop.nouns)

    def _split(self, split: Split) -> Sequence[int]:
        if split not in self._goals:
            self._goals[split] = self.shop.split(split, self.split_rule)
        return self._goals[split]
