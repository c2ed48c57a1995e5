"""No goal, and by product no product, is ever in two splits, whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import pytest
from torch.utils.data import DataLoader

from lightning_mem1.data.task_data import TaskStream
from lightning_mem1.data.webshop import WebShopData
from lightning_mem1.environments.webshop import Shop, products_from
from lightning_mem1.environments.webshop.generated.generated import generate
from lightning_mem1.environments.webshop.goals.requests import TEST, TRAIN, VAL, part_of
from lightning_mem1.environments.webshop.tasks import ShopTasks
from lightning_mem1.types import Split

SPLITS: tuple[Split, ...] = ("train", "val", "test")
SOURCES = {rule: ShopTasks(split_rule=rule) for rule in ("canonical", "by_product")}
RANKS, WORKERS, STEPS, TASKS = 2, 16, 64, 8


def served(source: ShopTasks, seed: int) -> Iterator[tuple[int, str, int]]:
    """Yield (rank, asin, goal) of every training task that 2 ranks with 16 loader processes each are served."""
    for rank in range(RANKS):
        stream = TaskStream(source, TASKS, seed, done=lambda: 0, last=STEPS, rank=rank, world=RANKS)
        for batch in DataLoader(stream, batch_size=None, num_workers=WORKERS, multiprocessing_context="fork"):
            for task in batch.tasks:
                goal = source.shop.goals[task.data["goal"]]
                yield rank, goal.asin, goal.index


def goals_and_products(source: ShopTasks, split: Split) -> tuple[set[int], set[str]]:
    goals = [source.shop.goals[source.task(split, i).data["goal"]] for i in range(source.size(split))]
    return {goal.index for goal in goals}, {goal.asin for goal in goals}


@pytest.mark.parametrize("rule", ["canonical", "by_product"])
def test_sixteen_workers_on_two_ranks_train_on_no_goal_of_eval_or_test(rule: str) -> None:
    source = SOURCES[rule]
    seen = list(served(source, seed=3))
    assert len(seen) == STEPS * TASKS == len({goal for _, _, goal in seen})  # nothing is served twice either
    assert {rank for rank, _, _ in seen} == {0, 1}
    for split in ("val", "test"):
        goals, products = goals_and_products(source, split)  # type: ignore[arg-type]
        assert not goals & {goal for _, _, goal in seen}
        if rule == "by_product":
            assert not products & {asin for _, asin, _ in seen}


def test_loader_workers_serve_the_rl_steps_in_order_and_as_one_process_would() -> None:
    stream = TaskStream(SOURCES["canonical"], 4, 0, done=lambda: 2, last=9, rank=1, world=2)
    alone, shared = (
        [(batch.rl_step, [task.id for task in batch.tasks]) for batch in DataLoader(stream, batch_size=None, **many)]
        for many in ({}, {"num_workers": 3, "multiprocessing_context": "fork"})
    )
    assert [rl_step for rl_step, _ in alone] == [3, 4, 5, 6, 7, 8, 9]
    assert shared == alone


@pytest.mark.parametrize("rule", ["canonical", "by_product"])
def test_the_three_splits_cover_every_goal_once(rule: str) -> None:
    source = SOURCES[rule]
    parts = {split: goals_and_products(source, split) for split in SPLITS}
    assert set.union(*(goals for goals, _ in parts.values())) == set(range(len(source.shop.goals)))
    for one, other in combinations(SPLITS, 2):
        assert not parts[one][0] & parts[other][0]
        assert bool(parts[one][1] & parts[other][1]) == (rule == "canonical")


def test_by_product_gives_an_eighth_to_test_and_a_quarter_to_eval() -> None:
    parts = [part_of(f"B{number:09}") for number in range(8000)]
    assert [parts.count(part) for part in (TEST, VAL, TRAIN)] == [978, 2080, 4942]
    assert [part_of(asin) for asin in ("B09QCP4579", "B000000000", "B000000001")] == [TRAIN, VAL, TEST]


def test_a_product_stays_in_its_part_in_every_catalogue() -> None:
    items, ins = generate(0, 300)
    whole, half = (Shop(products_from(some, ins), nouns="rule") for some in (items, items[:150]))
    for split in SPLITS:
        assert {half.goals[i].asin for i in half.split(split, "by_product")} <= {
            whole.goals[i].asin for i in whole.split(split, "by_product")
        }


def test_no_seed_of_a_worker_moves_a_goal_to_another_split() -> None:
    products = products_from(*generate(0, 120))
    shops = [Shop(products, seed=seed, nouns="rule") for seed in range(WORKERS)]
    for rule in ("canonical", "by_product"):
        for split in SPLITS:
            wanted = [
                [(shop.goals[i].asin, shop.goals[i].options) for i in shop.split(split, rule)]  # type: ignore[arg-type]
                for shop in shops
            ]
            assert all(each == wanted[0] for each in wanted)


def test_the_rule_is_a_setting_of_the_data_module_and_stands_in_the_id_of_a_task() -> None:
    source = WebShopData(split_rule="by_product", num_products=200).source
    assert isinstance(source, ShopTasks)
    assert source.task("val", 3).id == "webshop/by_product/val/3"
    assert source.task("val", 3).data["goal"] == source.shop.split("val", "by_product")[3]


def test_an_unknown_rule_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ValueError, match="canonical or by_product, got 'random': set data.split_rule"):
        ShopTasks("/nowhere", split_rule="random")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="canonical or by_product, got 'random'"):
        SOURCES["canonical"].shop.split("val", "random")  # type: ignore[arg-type]


def test_products_of_the_official_thousand_are_in_one_split_each(real_shops: dict[str, Shop]) -> None:
    shop = real_shops["synthetic"]
    products = {split: {shop.goals[i].asin for i in shop.split(split, "by_product")} for split in SPLITS}
    assert not products["train"] & products["val"] and not products["test"] & (products["train"] | products["val"])
    canonical = {split: {shop.goals[i].asin for i in shop.split(split)} for split in SPLITS}
    elsewhere = canonical["train"] | canonical["val"]
    assert len(canonical["test"]) == 146 and len(canonical["test"] & elsewhere) == 127  # why there is a choice


def test_what_is_reachable_is_all_by_value_and_less_in_the_reference(
    golden: Callable[[str], Any], real_shops: dict[str, Shop]
) -> None:
    from lightning_mem1.environments.webshop.goals.reward import reachable

    shop = real_shops["synthetic"]
    strict, repaired = (
        [reachable(goal, shop.by_asin[goal.asin], strict, shop.nouns) for goal in shop.goals]
        for strict in (True, False)
    )
    assert set(repaired) == {1.0}
    assert sum(value < 1.0 for value in strict) == 458
    assert sum(value == 1.0 for value in strict[:500]) / 500 == 0.96
