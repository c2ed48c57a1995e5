"""The reference's pages to the letter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lightning_mem1.environments.webshop import Shop, WebShopEnv

GOAL_TEXT = "Find me brass desk lamps with base: white, and shade: white"


def strict_env(shop: Shop, **settings: Any) -> WebShopEnv:
    goal = next(goal for goal in shop.goals if goal.instruction.startswith(GOAL_TEXT))
    return WebShopEnv(shop, goal, strict=True, **settings)


def test_a_whole_episode_in_text_mode(tiny_shop: Shop) -> None:
    env = strict_env(tiny_shop)
    ask = env.goal.instruction
    assert env.observe() == f"WebShop [SEP] Instruction: [SEP] {ask} [SEP] Search"
    top = f"Instruction: [SEP] {ask} [SEP] Back to Search"
    assert env.step("search[Road Shoes]").information == (
        f"{top} [SEP] Page 1 (Total results: 2) [SEP] Next > [SEP] B0SHOE0002 [SEP] Roadster road shoes [SEP] $100.0"
        " [SEP] B0SHOE0001 [SEP] Acme trail running shoes, waterproof [SEP] $40.0 to $60.0"
    )
    item = (
        f"{top} [SEP] < Prev [SEP] color [SEP] black [SEP] blue | red [SEP] size [SEP] large [SEP] x-large [SEP] Acme "
        "trail running shoes, waterproof [SEP] Price: $40.0 to $60.0 [SEP] Rating: N.A. [SEP] Description [SEP] "
        "Features [SEP] Reviews [SEP] Buy Now"
    )
    assert env.step("click[B0SHOE0001]").information == item
    assert env.step("click[black]").information == item  # the reference does not show what is chosen
    assert env.step("click[features]").information == f"{top} [SEP] < Prev [SEP] Waterproof upper [SEP] Rubber sole"
    assert env.step("click[reviews]").information != item
    env.step("click[< prev]")
    bought = env.step("click[buy now]")
    assert bought.done
    assert '[SEP] options [SEP] {"color": "black"} [SEP]' in bought.information
    assert f"Your score (min 0.0, max 1.0) [SEP] {bought.reward} [SEP]" in bought.information
    assert env.step("search[lamp]").valid  # the reference goes on after the purchase


def test_text_rich_repeats_chosen_options_on_top(tiny_shop: Shop) -> None:
    env = strict_env(tiny_shop, mode="text_rich")
    for action in ("search[shoes]", "click[b0shoe0001]", "click[black]", "click[large]"):
        text = env.step(action).information
    assert text.startswith("You have clicked large.\nYou have clicked black.\nInstruction:\n")
    assert "color\n  [clicked button] black [clicked button_]\n  [button] blue | red [button_]\n" in text


def test_urls_tell_the_state(tiny_shop: Shop) -> None:
    env = strict_env(tiny_shop, mode="url", session="s")
    assert env.observe() == "http://127.0.0.1:3000/s"
    assert env.step("search[desk lamp]").information == "http://127.0.0.1:3000/search_results/s/desk+lamp/1"
    env.step("click[b0lamp0001]")
    url = env.step("click[white]").information  # two options have this value: the reference takes the last one
    assert url == 'http://127.0.0.1:3000/item_page/s/B0LAMP0001/desk+lamp/1/{"base": "white"}'


@pytest.mark.parametrize(
    "action", ["", "search", "search[]", "Search[x]", " click[search]", "click[search]", "search[a [b] c]", "click[x]"]
)
def test_what_the_reference_does_not_understand_changes_nothing(tiny_shop: Shop, action: str) -> None:
    env = strict_env(tiny_shop)
    before = env.observe()
    result = env.step(action)
    assert (result.information, result.reward, result.done, result.valid) == (before, 0.0, False, False)


def test_trailing_text_after_an_action_is_ignored(tiny_shop: Shop) -> None:
    assert strict_env(tiny_shop).step("search[shoes] now").valid


def test_pages_go_on_past_the_end(tiny_shop: Shop) -> None:
    env = strict_env(tiny_shop)
    env.step("search[shoes]")
    assert env.step("click[next >]").information.endswith("Page 2 (Total results: 2) [SEP] < Prev [SEP] Next >")


def test_a_search_of_nothing_but_a_space_finds_nothing(tiny_shop: Shop) -> None:
    assert "(Total results: 0)" in strict_env(tiny_shop).step("search[ ]").information


def test_special_queries_list_a_department_or_a_query(tiny_shop: Shop) -> None:
    env = strict_env(tiny_shop)
    env.step("search[<c> garden]")
    assert env.page.results == ("B0LAMP0001",)
    env.step("search[<q> running shoes]")
    assert env.page.results == ("B0SHOE0001", "B0SHOE0002")
    env.step("search[<r>]")
    assert sorted(env.page.results) == ["B0LAMP0001", "B0SHOE0001", "B0SHOE0002"]


@pytest.mark.parametrize("query", ["<a> brass", "<c>"])
def test_a_query_that_crashes_the_reference_costs_the_turn(tiny_shop: Shop, query: str) -> None:
    env = strict_env(tiny_shop)
    result = env.step(f"search[{query}]")
    assert (result.valid, "crashes" in result.info["invalid"], env.page.kind) == (False, True, "search")


def test_texts_of_nothing_but_spaces_vanish_with_a_line_break_only(tiny_shop: Shop) -> None:
    env = strict_env(tiny_shop)
    env.step("search[road]")
    env.step("click[b0shoe0002]")
    assert env.step("click[description]").information.endswith("Back to Search [SEP] < Prev")
    env.step("click[< prev]")
    assert env.step("click[features]").information.endswith("< Prev [SEP] No Features")


def test_golden_episodes_agree_at_every_step_in_every_mode(
    golden: Callable[[str], Any], real_shops: dict[str, Shop]
) -> None:
    for episode in golden("episodes.json.gz")["episodes"]:
        shop = real_shops[episode["goal_set"]]
        for mode in ("text", "text_rich", "url"):
            goal = shop.goals[episode["session"]]
            env = WebShopEnv(shop, goal, strict=True, mode=mode, show_attrs=episode["show_attrs"])  # type: ignore[arg-type]
            first, *rest = episode["steps"]
            assert (env.observe(), env.available) == (first[mode], first["available"])
            for step in rest:
                result = env.step(step["action"])
                if "error" in step:
                    assert not result.valid
                    continue
                where = (episode["name"], step["action"], mode)
                assert result.information == step[mode], where
                assert (result.reward, result.done) == (step["reward"], step["done"]), where
                assert env.available == step["available"], where


def test_golden_history_is_put_before_the_page(golden: Callable[[str], Any], real_shops: dict[str, Shop]) -> None:
    case, shop = golden("prev_obs_concat.json"), real_shops["synthetic"]
    env = WebShopEnv(
        shop,
        shop.goals[0],
        strict=True,
        num_prev_obs=case["num_prev_obs"],
        num_prev_actions=case["num_prev_actions"],
    )
    assert env.observe() == case["reset"]
    for action, observation in (case["step1"], case["step2"]):
        assert env.step(action).information == observation
