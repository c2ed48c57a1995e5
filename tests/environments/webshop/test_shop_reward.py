"""What a purchase is worth."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightning_mem1.environments.webshop import Goal, Product, Shop, score
from lightning_mem1.environments.webshop.goals.fuzzy import alike, token_set_ratio
from lightning_mem1.environments.webshop.goals.nouns import Nouns, rule_nouns
from lightning_mem1.environments.webshop.goals.reward import normalize_color

RULE = Nouns("rule")


def goal_of(shop: Shop, **options: str) -> Goal:
    return next(goal for goal in shop.goals if goal.options == options)


def shoe(shop: Shop) -> Product:
    return shop.by_asin["B0SHOE0001"]


@pytest.mark.parametrize("strict", [False, True])
def test_everything_right_is_worth_one(tiny_shop: Shop, strict: bool) -> None:
    goal, product = goal_of(tiny_shop, color="black", size="large"), shoe(tiny_shop)
    reward = score(goal, product, {"color": "black", "size": "large"}, product.price, strict, RULE)
    assert (reward.total, reward.r_type, reward.r_att, reward.r_option, reward.r_price) == (1.0, 1.0, 1.0, 1.0, True)
    assert (reward.w_att, reward.w_option, reward.w_price) == (2 / 5, 2 / 5, 1 / 5)
    assert reward.noun_source == "rule"


def test_parts_are_counted_one_by_one(tiny_shop: Shop) -> None:
    """Both attributes, one of two options, too dear: 3 of 5."""
    goal, product = goal_of(tiny_shop, color="black", size="large"), shoe(tiny_shop)
    assert score(goal, product, {"color": "black"}, 1000.0, False, RULE).total == pytest.approx(3 / 5)


def test_large_passes_for_x_large_only_in_the_reference(tiny_shop: Shop) -> None:
    goal, product = goal_of(tiny_shop, color="black", size="x-large"), shoe(tiny_shop)
    chosen = {"color": "black", "size": "large"}
    assert score(goal, product, chosen, 1.0, True, RULE).num_options == 2
    assert score(goal, product, chosen, 1.0, False, RULE).num_options == 1


def test_a_value_that_holds_a_colour_can_only_be_met_by_value(tiny_shop: Shop) -> None:
    """The reference turns the bought 'brown2070' into 'brown', which is unlike the pair ('shade', 'brown2070')."""
    goal, product = goal_of(tiny_shop, shade="brown2070", base="white"), tiny_shop.by_asin["B0LAMP0001"]
    chosen = {"shade": "brown2070", "base": "white"}
    assert score(goal, product, chosen, 1.0, True, RULE).num_options == 1
    assert score(goal, product, chosen, 1.0, False, RULE).num_options == 2


def test_an_option_counts_only_under_its_own_name(tiny_shop: Shop) -> None:
    goal, product = goal_of(tiny_shop, shade="white", base="features"), tiny_shop.by_asin["B0LAMP0001"]
    assert score(goal, product, {"base": "white"}, 1.0, False, RULE).num_options == 0
    assert score(goal, product, {"shade": "white"}, 1.0, False, RULE).num_options == 1


def test_a_product_without_the_value_asked_for_may_offer_an_alike_one(tiny_shop: Shop) -> None:
    goal, product = goal_of(tiny_shop, color="black", size="large"), shoe(tiny_shop)
    other = replace(product, options={"color": ("jet black",)})
    assert score(goal, other, {"color": "jet black"}, 1.0, False, RULE).num_options == 1
    assert score(goal, other, {}, 1.0, False, RULE).num_options == 0


def test_human_options_have_no_names(tiny_products: list[Product]) -> None:
    shop = Shop(tiny_products, human_goals=True, nouns="rule")
    assert score(shop.goals[0], shoe(shop), {"color": "black"}, 1.0, False, RULE).r_option == 1.0
    assert score(shop.goals[0], shoe(shop), {"color": "blue | red"}, 1.0, False, RULE).r_option == 0.0


def test_a_goal_without_options_has_no_option_score(tiny_shop: Shop) -> None:
    goal = replace(goal_of(tiny_shop, color="black", size="large"), options={})
    assert score(goal, shoe(tiny_shop), {}, 1.0, True, RULE).r_option is None


def test_attributes_are_found_fuzzily_or_in_the_texts(tiny_shop: Shop) -> None:
    """'waterproof' is in the title, 'sole rubber' is like an attribute, 'muddy' in the description, 'silk' nowhere."""
    goal = replace(
        goal_of(tiny_shop, color="black", size="large"), attributes=("waterproof", "sole rubber", "muddy", "silk")
    )
    assert score(goal, shoe(tiny_shop), {}, 1.0, False, RULE).r_att == 3 / 4


def test_the_type_is_judged_by_shared_nouns_then_by_query_and_category(tiny_shop: Shop) -> None:
    """The goal's title has the nouns acme, trail, running, shoes, waterproof."""
    goal = replace(goal_of(tiny_shop, color="black", size="large"), query="sneakers", product_category="A › B")
    one_shared = replace(shoe(tiny_shop), title="Leather shoes")
    reward = score(goal, one_shared, {}, 1.0, False, RULE)
    assert (reward.title_score, reward.query_match, reward.category_match, reward.r_type) == (0.2, False, False, 0.5)
    same_levels = replace(one_shared, product_category="B › A › C")
    assert score(goal, same_levels, {}, 1.0, False, RULE).r_type == 1.0
    none_shared = replace(shoe(tiny_shop), title="Lamp", query="sneakers")
    assert score(goal, none_shared, {}, 1.0, False, RULE).r_type == 0.0


def test_the_rule_takes_words_but_no_stop_words_or_numbers() -> None:
    assert rule_nouns("The 2 Packs of Women's T-Shirts, 10.5 ★") == ("packs", "women's", "t-shirts")


def test_pinned_nouns_are_used_for_pairs_they_cover(tmp_path: Path) -> None:
    path = tmp_path / "nouns.json"
    path.write_text(json.dumps({"nouns": {"A": ["shoe"], "B": ["lamp"]}}))
    assert Nouns(path).of_pair("A", "x", "B", "y") == (["shoe"], ["lamp"], "pinned")
    asked, bought, source = Nouns(str(path)).of_pair("A", "x", "C", "y")
    assert source != "pinned"


def test_nouns_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'auto', 'rule', 'spacy' or a JSON file"):
        Nouns(tmp_path / "none.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold .*nouns.*got list"):
        Nouns(tmp_path / "list.json")


def test_token_set_ratio_by_hand() -> None:
    assert token_set_ratio("Blue", "navy blue") == 100  # all words of one are in the other
    assert token_set_ratio("", "x") == token_set_ratio("★", "x") == 0  # no word
    assert token_set_ratio("a_b", "a b") == 67  # '_' belongs to a word: 2 * 2 / 6 letters
    assert token_set_ratio("café", "caf") == 100  # accented Latin letters are dropped
    assert alike("rubber sole", "sole, rubber")
    assert not alike("leather sole", "rubber sole")


def test_the_first_colour_word_in_the_list_stands_for_the_value() -> None:
    assert [normalize_color(value) for value in ("brown | black", "standard", "xl")] == ["black", "tan", "xl"]


def test_golden_colours_and_ratios(golden: Callable[[str], Any]) -> None:
    for value, expected in golden("normalize_color.json"):
        assert normalize_color(value) == expected
    for case in golden("token_set_ratio.json"):
        second = str(tuple(case["s2"])) if case["s2_is_tuple"] else case["s2"]
        assert token_set_ratio(case["s1"], second) == case["thefuzz_0_19_0_difflib"]
        assert alike(case["s1"], second) == (case["thefuzz_0_19_0_difflib"] > 85)


def test_golden_rewards_agree_in_every_part(golden: Callable[[str], Any], real_shops: dict[str, Shop]) -> None:
    for case in golden("rewards.json.gz")["cases"]:
        shop = real_shops[case["goal_set"]]
        goal, product = shop.goals[case["goal_idx"]], shop.by_asin[case["purchased_asin"]]
        reward = score(goal, product, case["options"], case["price"], True, shop.nouns)
        assert reward.total == case["reward"]
        assert {key: getattr(reward, key) for key in case["info"]} == case["info"]
        assert reward.num_attributes == case["num_attr_matches"]
        assert (reward.num_options, reward.r_option) == (case["num_option_matches"], case["r_option"])
        assert reward.noun_source == "pinned"
