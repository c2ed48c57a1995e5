"""Scripted shoppers: what they read, what they write, how well they shop."""

from __future__ import annotations

import random

from lightning_mem1.context.tags import Tags, parse_turn
from lightning_mem1.environments.webshop.baselines import (
    EXPERT_SHOPPER,
    ScriptedShopper,
    ShopperSkill,
    attentive,
    oracle,
    play,
    rule_baseline,
)
from lightning_mem1.environments.webshop.page_reader import read_instruction, read_page
from lightning_mem1.environments.webshop.tasks import ShopTasks

TASKS = ShopTasks()
VAL = [TASKS.task("val", index) for index in range(200)]
REQUEST = (
    "i would like to buy slim fit men's jeans which is machine wash with color: navy blue, and size: 32w x 30l, "
    "and price lower than 50.00 dollars"
)
RESULTS = """Page 1 of 2
Acme slim fit men's jeans, zipper closure $79.99 [baaaaa]
Brano slim fit men's jeans, machine wash $39.99 [bbbbbb]
Actions: click[item] click[next >] click[back to search]"""
ITEM = """Brano slim fit men's jeans, machine wash
Price: $39.99
color: [black] [navy blue]
size: [30w x 30l] [32w x 30l]
Selected: {}
Actions: click[option] click[buy now] click[description] click[features] click[< prev] click[back to search]"""
SURE = ShopperSkill(choice=1, option=1, recover=0, browse=0, query=1)


def mean_reward(shopper) -> float:
    return sum(shopper(TASKS.env(task)).reward for task in VAL) / len(VAL)


def test_an_instruction_is_taken_apart() -> None:
    wanted = read_instruction(REQUEST)
    assert wanted.phrases == ("slim fit men's jeans", "machine wash")
    assert wanted.options == (("color", "navy blue"), ("size", "32w x 30l"))
    assert wanted.price == 50.0
    assert wanted.summary() == "slim fit men's jeans, machine wash; color navy blue; size 32w x 30l; under 50"


def test_options_and_price_of_every_generated_goal_are_read_exactly() -> None:
    for goal in TASKS.shop.goals[:1500]:
        wanted = read_instruction(goal.instruction)
        assert dict(wanted.options) == goal.options
        assert (wanted.price or 1_000_000) == goal.price_upper
        words = ", ".join(wanted.phrases)
        assert goal.query in words and all(each in words for each in goal.attributes)


def test_pages_are_read() -> None:
    assert read_page("Invalid action: a search needs words.\nSearch page\nActions: search[words]").kind == "search"
    results = read_page(RESULTS)
    assert results.results[1] == ("bbbbbb", "Brano slim fit men's jeans, machine wash", 39.99)
    item = read_page(ITEM.format("color: navy blue"))
    assert item.choices == {"color": ("black", "navy blue"), "size": ("30w x 30l", "32w x 30l")}
    assert item.selected == ("color",)
    assert read_page("Soft.\nActions: click[< prev] click[back to search]").kind == "text"


def test_an_expert_writes_the_turns_of_an_episode_from_what_it_sees() -> None:
    novice = ScriptedShopper(random.Random(0), SURE)
    first = novice.turn(REQUEST, None, "Search page\nActions: search[words]", 10)
    assert first == (
        "<summary>tried none; search</summary><answer>search[slim fit men's jeans which is machine wash with color: "
        "navy blue, and size: 32w x 30l]</answer>"
    )
    second = novice.turn(REQUEST, first, RESULTS, 9)
    assert second == "<summary>tried none; open one</summary><answer>click[bbbbbb]</answer>"
    third = novice.turn(REQUEST, second, ITEM.format("nothing"), 8)
    assert third == "<summary>tried none; at bbbbbb; choose color: navy blue</summary><answer>click[navy blue]</answer>"
    fourth = novice.turn(REQUEST, third, ITEM.format("color: navy blue"), 7)
    assert fourth == "<summary>tried none; at bbbbbb; choose size: 32w x 30l</summary><answer>click[32w x 30l]</answer>"
    last = novice.turn(REQUEST, fourth, ITEM.format("color: navy blue, size: 32w x 30l"), 6)
    assert last == "<summary>tried none; at bbbbbb; buy</summary><answer>click[buy now]</answer>"


def test_an_item_given_up_is_remembered_through_the_summary_alone() -> None:
    novice = ScriptedShopper(random.Random(0), EXPERT_SHOPPER)
    opened = "<summary>tried none; open one</summary><answer>click[bbbbbb]</answer>"
    lacking = ITEM.format("nothing").replace("[navy blue]", "[red]")
    back = novice.turn(REQUEST, opened, lacking, 8)
    assert back.endswith("tried bbbbbb; go back</summary><answer>click[< prev]</answer>")
    assert novice.turn(REQUEST, back, RESULTS, 7).endswith("open one</summary><answer>click[baaaaa]</answer>")


def test_a_novice_that_forgets_options_finishes_those_it_has_begun() -> None:
    careless = ShopperSkill(choice=1, option=0, recover=0, browse=0, query=1)

    def action(selected: str, seed: int) -> str | None:
        turn = ScriptedShopper(random.Random(seed), careless).turn(REQUEST, None, ITEM.format(selected), 8)
        return parse_turn(turn, Tags()).action

    assert {action("nothing", seed) for seed in range(60)} == {"click[buy now]", "click[black]"}  # black: a slip
    assert {action("color: navy blue", seed) for seed in range(60)} == {"click[32w x 30l]"}
    assert {action("color: navy blue, size: 32w x 30l", seed) for seed in range(60)} == {"click[buy now]"}


def test_a_novice_that_clicks_what_is_not_there_goes_on_with_what_is() -> None:
    stubborn = ShopperSkill(choice=1, option=0, recover=0, browse=0, query=1, miss=1)
    lacking, missed = ITEM.replace(" [32w x 30l]", ""), "click[32w x 30l]"
    novice = ScriptedShopper(random.Random(0), stubborn)
    first = novice.turn(REQUEST, None, lacking.format("nothing"), 8)
    then = novice.turn(REQUEST, first, lacking.format("nothing"), 7)
    again = novice.turn(REQUEST, then, lacking.format("color: navy blue"), 6)
    last = novice.turn(REQUEST, again, lacking.format("color: navy blue"), 5)
    actions = [parse_turn(turn, Tags()).action for turn in (first, then, again, last)]
    assert actions == [missed, "click[navy blue]", missed, "click[buy now]"]


def test_the_last_turn_buys() -> None:
    turn = ScriptedShopper(random.Random(0), EXPERT_SHOPPER).turn(REQUEST, None, ITEM.format("nothing"), 1)
    assert parse_turn(turn, Tags()).action == "click[buy now]"


def test_tags_are_a_setting() -> None:
    tags = Tags(internal_state="think", action="do")
    turn = ScriptedShopper(random.Random(0), EXPERT_SHOPPER, tags).turn(
        REQUEST, None, "Search page\nActions: search[words]", 10
    )
    assert turn.startswith("<think>tried none; ") and turn.endswith("]</do>")


def test_every_turn_of_every_novice_is_well_formed_and_every_action_valid() -> None:
    for seed, skill in enumerate(
        (ShopperSkill(), ShopperSkill(0, 0, 0, 0.9), ShopperSkill(0.5, 0.5, 1.0, 0.5), EXPERT_SHOPPER)
    ):
        for task in VAL[:60]:
            game = play(TASKS.env(task), ScriptedShopper(random.Random(seed), skill))
            assert game.valid, (game.actions, game.replies)
            assert len(game.actions) <= 10
            for text in game.texts:
                state = parse_turn(text, Tags()).internal_state
                assert 3 <= len(state.split()) <= 20, state


def test_equal_seeds_give_equal_episodes() -> None:
    games = [play(TASKS.env(VAL[3]), ScriptedShopper(random.Random(5), ShopperSkill())).texts for _ in range(2)]
    assert games[0] == games[1]


def test_the_oracle_is_perfect_the_reader_good_and_the_rule_mediocre() -> None:
    assert mean_reward(oracle) == 1.0
    assert mean_reward(attentive) >= 0.88
    assert 0.55 <= mean_reward(rule_baseline) <= 0.72


def test_the_rule_and_the_oracle_stop_when_their_turns_are_spent() -> None:
    for shopper in (rule_baseline, oracle):
        whole = shopper(TASKS.env(VAL[0]))
        assert whole.actions[-1] == "click[buy now]" and len(whole.actions) <= 10
        cut = shopper(TASKS.env(VAL[0]), max_turns=len(whole.actions) - 1)
        assert cut.actions == whole.actions[:-1] and cut.reward == 0.0


def test_each_skill_of_a_novice_counts() -> None:
    def reward(skill: ShopperSkill) -> float:
        rng = random.Random(1)
        return mean_reward(lambda env: play(env, ScriptedShopper(rng, skill)))

    default = reward(ShopperSkill())
    assert reward(EXPERT_SHOPPER) > reward(ShopperSkill(choice=0.9)) > default > reward(ShopperSkill(choice=0.0))
    assert reward(ShopperSkill(option=1.0)) > default > reward(ShopperSkill(option=0.2))
