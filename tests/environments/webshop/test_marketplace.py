"""Listings as untidy as real ones, made from the tidy generated ones; the goals stay reachable."""

from __future__ import annotations

import hashlib
import json
import math
import re
from statistics import fmean, quantiles

from lightning_mem1.environments.webshop import products_from
from lightning_mem1.environments.webshop.baselines import attentive, oracle, rule_baseline
from lightning_mem1.environments.webshop.generated.generated import generate
from lightning_mem1.environments.webshop.generated.marketplace import restyle
from lightning_mem1.environments.webshop.tasks import ShopTasks

TIDY, TIDY_INS = generate(3, 400)
ITEMS, INS = restyle(TIDY, TIDY_INS, 3)


def test_equal_seeds_give_equal_listings_and_other_seeds_other_ids() -> None:
    assert restyle(TIDY, TIDY_INS, 3) == (ITEMS, INS)
    assert not {item["asin"] for item in restyle(TIDY, TIDY_INS, 4)[0]} & {item["asin"] for item in ITEMS}


def test_a_seed_is_pinned_to_the_last_character() -> None:
    # The bundled policy was cloned in such shops: with another digest its command would make another policy.
    text = json.dumps([ITEMS, INS], sort_keys=True, ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "bd9e648360b76db7"


def test_ids_have_ten_characters_and_begin_alike() -> None:
    asins = [item["asin"] for item in ITEMS]
    assert len(set(asins)) == len(asins) == len(INS)
    assert all(re.fullmatch(r"B0[01789][A-Z0-9]{7}", asin) for asin in asins)


def test_titles_keep_what_the_tidy_ones_say_and_grow_to_those_of_the_official_files() -> None:
    for tidy, item in zip(TIDY, ITEMS, strict=True):
        assert item["name"].lower().startswith(tidy["name"].lower()[:40]), (tidy["name"], item["name"])
        shown = [each for each in TIDY_INS[tidy["asin"]]["attributes"] if each in tidy["name"]]
        assert [each for each in shown if each not in item["name"].lower()] == []
    lengths = [len(item["name"]) for item in ITEMS]
    low, *_, high = quantiles(lengths, n=10)
    assert 45 < low < 95 and 130 < high <= 190 >= max(lengths) and 90 < fmean(lengths) < 130


def test_options_have_many_values_that_stand_under_one_name_each_and_few_combinations() -> None:
    counts, coded = [], 0
    for item in ITEMS:
        options = item["customization_options"] or {}
        values = [each["value"] for listed in options.values() for each in listed]
        assert len(set(values)) == len(values) and all(values)
        assert math.prod(len(listed) for listed in options.values()) <= 80
        counts += [len(listed) for listed in options.values()]
        coded += sum(bool(re.search(r"\d", each["value"])) for each in options.get("color", ()))
    assert max(counts) > 8 and min(counts) >= 1 and coded > 50


def test_requests_are_worded_as_the_official_ones_and_name_every_wanted_attribute() -> None:
    asked = [each for each in INS.values() if "instruction" in each]
    assert len(asked) == sum("instruction" in each for each in TIDY_INS.values()) > 200
    for each in asked:
        assert each["instruction"].startswith("Find me ")
        assert all(wanted in each["instruction"] for wanted in each["instruction_attributes"])
    assert any(" & " in each["instruction"] for each in asked)


def test_the_shop_can_be_read_and_every_goal_reached() -> None:
    source = ShopTasks(seed=3, num_products=400, results_per_page=5, marketplace=True)
    assert len(products_from(ITEMS, INS)) == len(source.shop.products)
    tasks = [source.task("train", index) for index in range(0, source.size("train"), source.size("train") // 40)]
    shoppers = {"oracle": oracle, "reader": attentive, "rule": rule_baseline}
    scores = {name: fmean(play(source.env(task)).reward for task in tasks) for name, play in shoppers.items()}
    assert scores["oracle"] == 1.0
    assert scores["rule"] < scores["reader"] - 0.1 and scores["reader"] > 0.9
