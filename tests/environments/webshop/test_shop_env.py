"""The repaired shop that agents play by default."""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lightning_mem1.environments.webshop import Shop, WebShopEnv, products_from
from lightning_mem1.environments.webshop.pages.compact import choices, clean

ITEM_PAGE = """Acme trail running shoes, waterproof
Price: $56.89
color: [black] [blue | red]
size: [large] [x-large]
Selected: {selected}
Actions: click[option] click[buy now] click[description] click[features] click[< prev] click[back to search]"""


def play(shop: Shop, *actions: str, goal: int = 0, **settings: Any) -> WebShopEnv:
    env = WebShopEnv(shop, shop.goals[goal], **settings)
    for action in actions:
        assert env.step(action).valid, action
    return env


def test_the_search_page_has_one_action(tiny_shop: Shop) -> None:
    env = play(tiny_shop)
    assert env.observe() == "Search page\nActions: search[words]"
    assert (env.available_actions, env.page.kind) == (["search[<words>]"], "search")


def test_results_show_the_price_that_will_be_paid(tiny_shop: Shop) -> None:
    env = play(tiny_shop, "search[road shoes]")
    assert env.observe() == (
        "Page 1 of 1\nRoadster road shoes $100.00 [b0shoe0002]\n"
        "Acme trail running shoes, waterproof $56.89 [b0shoe0001]\n"
        "Actions: click[item] click[back to search]"
    )
    assert env.page.results == ("B0SHOE0002", "B0SHOE0001")
    assert tiny_shop.by_asin["B0SHOE0001"].price == pytest.approx(56.8884, abs=1e-4)


def test_only_buttons_that_lead_somewhere_are_there(tiny_shop: Shop) -> None:
    env = play(tiny_shop, "search[road shoes]", results_per_page=1)
    assert env.available_actions == ["click[b0shoe0002]", "click[next >]", "click[back to search]"]
    assert not env.step("click[< prev]").valid
    env.step("click[next >]")
    assert env.available_actions == ["click[b0shoe0001]", "click[< prev]", "click[back to search]"]
    assert not env.step("click[next >]").valid  # there is no page past the end
    assert (env.page.number, env.page.num_pages) == (2, 2)


def test_a_search_without_hits_says_so(tiny_shop: Shop) -> None:
    env = play(tiny_shop, "search[zebra]")
    assert env.observe() == "Page 1 of 1\nNo results.\nActions: click[back to search]"


def test_selected_options_are_shown_and_can_be_changed(tiny_shop: Shop) -> None:
    env = play(tiny_shop, "search[shoes]", "click[b0shoe0001]")
    assert env.observe() == ITEM_PAGE.format(selected="nothing")
    assert env.step("click[black]").information == ITEM_PAGE.format(selected="color: black")
    assert env.step("click[x-large]").information == ITEM_PAGE.format(selected="color: black, size: x-large")
    assert env.step("click[large]").information == ITEM_PAGE.format(selected="color: black, size: large")
    assert env.page.selected == {"color": "black", "size": "large"}


def test_sub_pages_keep_the_selection_and_results_drop_it(tiny_shop: Shop) -> None:
    env = play(tiny_shop, "search[shoes]", "click[b0shoe0001]", "click[black]", "click[features]")
    assert env.observe() == "Waterproof upper\nRubber sole\nActions: click[< prev] click[back to search]"
    env.step("click[< prev]")
    assert env.page.selected == {"color": "black"}
    env.step("click[< prev]")
    assert (env.page.kind, env.page.selected, env.page.query) == ("results", {}, "shoes")


def test_pages_without_text_have_no_button(tiny_shop: Shop) -> None:
    env = play(tiny_shop, "search[road]", "click[b0shoe0002]")
    assert env.available_actions == ["click[buy now]", "click[< prev]", "click[back to search]"]


def test_a_purchase_ends_the_episode_and_hides_the_score(tiny_shop: Shop) -> None:
    goal = next(g.index for g in tiny_shop.goals if g.options == {"color": "black", "size": "x-large"})
    env = play(tiny_shop, "search[shoes]", "click[b0shoe0001]", "click[black]", "click[x-large]", goal=goal)
    result = env.step("click[buy now]")
    assert (result.information, result.reward, result.done) == ("", 1.0, True)
    assert result.info == {
        "success": 1.0,
        "r_type": 1.0,
        "r_att": 1.0,
        "r_option": 1.0,
        "r_price": 1.0,
        "asin": "B0SHOE0001",
        "noun_source": "rule",
    }
    again = env.step("click[buy now]")
    assert (again.valid, again.reward, again.done) == (False, 0.0, True)


def test_a_purchase_short_of_everything_is_no_success(tiny_shop: Shop) -> None:
    goal = next(g.index for g in tiny_shop.goals if g.options == {"color": "black", "size": "x-large"})
    env = play(tiny_shop, "search[shoes]", "click[b0shoe0001]", "click[black]", "click[large]", goal=goal)
    result = env.step("click[buy now]")
    assert (result.reward, result.info["success"], result.info["r_option"]) == (0.8, 0.0, 0.5)


def test_case_and_spaces_at_the_ends_of_an_action_do_not_matter(tiny_shop: Shop) -> None:
    env = play(tiny_shop, " SEARCH[ Road Shoes ] ", "Click[ B0SHOE0001 ]", "click [Blue | Red]")
    assert env.page.selected == {"color": "blue | red"}


@pytest.mark.parametrize(
    ("action", "why"),
    [
        ("click[black] click[large]", "expected one action"),
        ("buy now", "expected one action"),
        ("", "expected one action"),
        ("click[]", "there is no ''"),
        ("click[pink]", "there is no 'pink'"),
        ("search[lamp]", "no search bar"),
    ],
)
def test_an_invalid_action_costs_the_turn_and_shows_the_page_again(tiny_shop: Shop, action: str, why: str) -> None:
    env = play(tiny_shop, "search[shoes]", "click[b0shoe0001]")
    result = env.step(action)
    assert (result.valid, result.reward, result.done) == (False, 0.0, False)
    first, rest = result.information.split("\n", 1)
    assert first.startswith("Invalid action: ") and why in first
    assert rest == ITEM_PAGE.format(selected="nothing")


def test_an_empty_search_is_invalid(tiny_shop: Shop) -> None:
    assert "a search needs words" in play(tiny_shop).step("search[ ]").information


@pytest.mark.parametrize("strict", [False, True])
def test_an_action_of_a_megabyte_is_refused_at_once(tiny_shop: Shop, strict: bool) -> None:
    env, start = play(tiny_shop, strict=strict), time.perf_counter()
    result = env.step("search[" + "x " * 500_000 + "]")
    assert not result.valid and len(result.information) < 1000
    assert time.perf_counter() - start < 1.0


def test_a_value_of_two_options_and_the_name_of_a_button_are_clicked_with_their_name(tiny_shop: Shop) -> None:
    env = play(tiny_shop, "search[lamp]", "click[b0lamp0001]")
    assert "shade: [shade: white] [brown2070]\nbase: [base: white] [base: features]\n" in env.observe()
    assert "click[base: features]" in env.available_actions
    env.step("click[features]")  # this lamp has no features page, so the value alone is understood
    assert env.page.selected == {"base": "features"}
    env.step("click[base: white]")
    assert env.page.selected == {"base": "white"}
    env.step("click[white]")  # the value alone goes to the first option that has it and is not chosen
    assert env.page.selected == {"base": "white", "shade": "white"}


def test_titles_stand_on_one_line_without_control_characters(tiny_shop: Shop) -> None:
    env = play(tiny_shop, "search[lamp]")
    assert "Brass desk lamp with shade <b> $15.50 [b0lamp0001]\n" in env.observe()
    assert clean("a\x00\r\n\u2028 b\ud800\x1b[0m") == "a b [0m"


def test_long_texts_are_cut(tiny_shop: Shop) -> None:
    products = [replace(p, description="word " * 400_000, title="t" * 1000) for p in tiny_shop.products]
    env = play(Shop(products[:1], nouns="rule"), "search[word]", "click[b0shoe0001]")
    assert env.observe().split("\n")[0] == "t" * 296 + " ..."
    env.step("click[description]")
    assert len(env.observe()) < 4100


def test_every_action_that_is_listed_can_be_carried_out(tiny_shop: Shop) -> None:
    paths: list[tuple[str, ...]] = [("search[shoes lamp]",)]
    for depth in range(4):
        for path in [path for path in paths if len(path) == depth + 1]:
            env = play(tiny_shop, *path, show_attrs=True)
            for action in env.available_actions:
                assert env.available["has_search_bar"] == (env.page.kind == "search")
                paths.append((*path, action.replace("<words>", "shoes")))
    assert len(paths) > 200


def test_attributes_are_a_page_only_when_asked_for(tiny_shop: Shop) -> None:
    path = ("search[shoes]", "click[b0shoe0001]")
    assert not play(tiny_shop, *path).step("click[attributes]").valid
    page = play(tiny_shop, *path, "click[attributes]", show_attrs=True).observe()
    assert page == "water proof\nrubber sole\nActions: click[< prev] click[back to search]"


def test_episodes_share_a_shop_and_nothing_else(tiny_shop: Shop) -> None:
    one, other = play(tiny_shop), play(tiny_shop)
    one.step("search[shoes]")
    assert other.page.kind == "search"
    held = copy.deepcopy(one.page)
    one.page.selected["color"] = "black"  # a page is a copy
    assert one.page == held


def test_a_shop_can_be_sent_to_another_process(tiny_shop: Shop) -> None:
    copied = pickle.loads(pickle.dumps(tiny_shop))
    assert copied.goals == tiny_shop.goals
    assert copied.search("shoes") == tiny_shop.search("shoes")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"results_per_page": 0}, "at least 1, got 0"),
        ({"strict": True, "mode": "html"}, "text, text_rich or url, got 'html'"),
        ({"mode": "url"}, "set strict=True"),
        ({"strict": True, "num_prev_obs": -1}, "must not be negative"),
    ],
)
def test_wrong_settings_are_refused(tiny_shop: Shop, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WebShopEnv(tiny_shop, tiny_shop.goals[0], **settings)


def test_a_value_seen_twice_is_offered_once() -> None:
    item = {
        "asin": "B1",
        "name": "Mat",
        "category": "c",
        "query": "q",
        "product_category": "p",
        "customization_options": {"Size": [{"value": "a [b]"}, {"value": "a [b] "}, {"value": ""}]},
    }
    assert choices(products_from([item], {})[0]) == {"a [b]": ("size", "a [b]")}


def test_every_real_goal_can_reach_one(golden: Callable[[str], Any], real_shops: dict[str, Shop]) -> None:
    shop = real_shops["synthetic"]
    for goal in shop.goals:
        env = play(shop, f"search[{goal.name}]", f"click[{goal.asin}]", goal=goal.index, results_per_page=50)
        for shown, pair in choices(shop.by_asin[goal.asin]).items():
            if pair in goal.options.items():  # type: ignore[union-attr]
                assert env.step(f"click[{shown}]").valid
        assert env.step("click[buy now]").reward == 1.0, goal.index
