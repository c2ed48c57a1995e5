"""Goals, drawn prices and splits."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lightning_mem1.environments.webshop import Goal, Product, Shop, products_from


def as_golden(goal: Goal) -> dict[str, Any]:
    return {
        "idx": goal.index,
        "asin": goal.asin,
        "category": goal.category,
        "query": goal.query,
        "name": goal.name,
        "product_category": goal.product_category,
        "instruction_text": goal.instruction,
        "attributes": list(goal.attributes),
        "price_upper": goal.price_upper,
        "goal_options": goal.options,
        "weight": goal.weight,
    }


def shop_of(num_goals: int) -> Shop:
    """Return a shop with one product and `num_goals` values of its only option."""
    item = {
        "asin": "B000000001",
        "name": "Lamp",
        "category": "garden",
        "query": "lamps",
        "product_category": "Home",
        "customization_options": {"size": [{"value": str(n)} for n in range(num_goals)]},
    }
    ins = {"B000000001": {"attributes": [], "instruction": "Find me lamps", "instruction_attributes": ["bright"]}}
    return Shop(products_from([item], ins), nouns="rule")


def test_every_combination_of_options_is_a_goal_with_names_sorted(tiny_shop: Shop) -> None:
    texts = [goal.instruction.split(", and price")[0] for goal in tiny_shop.goals if goal.asin == "B0SHOE0001"]
    assert sorted(texts) == [
        "Find me waterproof running shoes with rubber sole with color: black, and size: large",
        "Find me waterproof running shoes with rubber sole with color: black, and size: x-large",
        "Find me waterproof running shoes with rubber sole with color: blue | red, and size: large",
        "Find me waterproof running shoes with rubber sole with color: blue | red, and size: x-large",
    ]
    assert [goal.index for goal in tiny_shop.goals] == list(range(8))


def test_prices_are_drawn_first_and_bounds_from_the_four_tens_above(tiny_products: Sequence[Product]) -> None:
    rng = random.Random(3)
    price = rng.uniform(40.0, 60.0)
    above = [ten for ten in range(10, 1000, 10) if ten > price][:4]
    bound = max(rng.sample(above, 2))
    shop = Shop(tiny_products, seed=3, nouns="rule")
    assert shop.by_asin["B0SHOE0001"].price == price
    goal = next(goal for goal in shop.goals if goal.asin == "B0SHOE0001")
    assert goal.price_upper == bound
    assert goal.instruction.endswith(f", and price lower than {bound}.00 dollars")


def test_the_seed_moves_prices_and_never_the_order(tiny_products: Sequence[Product]) -> None:
    one, other = (Shop(tiny_products, seed=seed, nouns="rule") for seed in (0, 1))
    assert [(goal.asin, goal.options) for goal in one.goals] == [(goal.asin, goal.options) for goal in other.goals]
    assert one.by_asin["B0SHOE0001"].price != other.by_asin["B0SHOE0001"].price


def test_a_price_above_the_last_ten_has_no_bound() -> None:
    item = {"asin": "B1", "name": "Sofa", "category": "c", "query": "q", "product_category": "p", "pricing": "$985"}
    ins = {"B1": {"instruction": "Find me sofas", "instruction_attributes": ["soft"]}}
    goal = Shop(products_from([item], ins), nouns="rule").goals[0]
    assert (goal.price_upper, goal.instruction) == (1_000_000.0, "Find me sofas")


def test_rare_attributes_weigh_more(tiny_shop: Shop) -> None:
    """Four goals ask for two attributes that occur four times, four goals for one that occurs four times."""
    assert {goal.weight for goal in tiny_shop.goals} == {0.25}


def test_human_goals_keep_their_list_of_options_and_need_attributes(tiny_products: Sequence[Product]) -> None:
    goals = Shop(tiny_products, human_goals=True, nouns="rule").goals
    assert [(goal.options, goal.weight) for goal in goals] == [(["black"], 1.0)]
    assert goals[0].instruction.startswith("i want black trail shoes, and price lower than")


def test_a_shop_without_goals_says_which_file_to_check(tiny_products: Sequence[Product]) -> None:
    with pytest.raises(ValueError, match=r"got no human instruction for 1 products.*items_human_ins"):
        Shop(tiny_products[1:2], human_goals=True)
    with pytest.raises(ValueError, match="at least one product"):
        Shop([])


def test_splits_are_cut_at_the_published_places() -> None:
    shop = shop_of(2100)
    assert shop.split("test") == range(0, 500)
    assert shop.split("val") == range(500, 1500)
    assert shop.split("train") == range(1500, 2100)


@pytest.mark.parametrize("num_goals", [1, 2, 8, 17, 1999, 2000])
def test_splits_of_any_catalogue_cover_all_goals_once(num_goals: int) -> None:
    shop = shop_of(num_goals)
    parts = [shop.split(split) for split in ("test", "val", "train")]
    assert [index for part in parts for index in part] == list(range(num_goals))
    assert len(parts[2]) > 0


def test_small_catalogues_are_cut_in_proportion() -> None:
    assert [len(shop_of(17).split(split)) for split in ("test", "val", "train")] == [2, 4, 11]


def test_an_unknown_split_names_the_known_ones(tiny_shop: Shop) -> None:
    with pytest.raises(ValueError, match="one of train, val, test, got 'dev'"):
        tiny_shop.split("dev")  # type: ignore[arg-type]


def test_golden_goals_come_in_the_reference_order(golden: Callable[[str], Any], real_shops: dict[str, Shop]) -> None:
    assert [as_golden(goal) for goal in real_shops["synthetic"].goals] == golden("goals_synthetic_seed0.jsonl.gz")
    assert [as_golden(goal) for goal in real_shops["human"].goals] == golden("goals_human_seed0.json")


def test_golden_prices_are_drawn_alike(golden: Callable[[str], Any], real_shops: dict[str, Shop]) -> None:
    for kind, shop in real_shops.items():
        assert {product.asin: product.price for product in shop.products} == golden("prices_seed0.json")[f"{kind}_env"]
