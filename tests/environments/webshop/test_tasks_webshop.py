"""Shop tasks: goals of the right split, fresh environments, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_mem1.data.webshop import WebShopData
from lightning_mem1.environments.webshop.baselines import rule_baseline
from lightning_mem1.environments.webshop.generated.generated import generate
from lightning_mem1.environments.webshop.tasks import ShopTasks

TASKS = ShopTasks(num_products=400)


def test_a_task_is_the_goal_at_its_place_in_the_split() -> None:
    task = TASKS.task("val", 17)
    goal = TASKS.shop.goals[TASKS.shop.split("val")[17]]
    assert task.id == "webshop/val/17"
    assert task.prompt == f"Instruction: {goal.instruction}"
    assert task.data == {"goal": goal.index}
    assert task.max_turns == 10
    assert TASKS.env(task).goal is goal


def test_sizes_are_those_of_the_splits_and_indices_outside_are_refused() -> None:
    for split in ("train", "val", "test"):
        assert TASKS.size(split) == len(TASKS.shop.split(split)) > 0
        with pytest.raises(IndexError, match=f"split '{split}', got -1"):
            TASKS.task(split, -1)
        with pytest.raises(IndexError, match="task index must be"):
            TASKS.task(split, TASKS.size(split))


def test_each_environment_starts_on_the_search_page_whatever_others_did() -> None:
    task = TASKS.task("train", 0)
    first = TASKS.env(task)
    first.step("search[shoes]")
    assert first.page.kind == "results"
    assert TASKS.env(task).observe() == "Search page\nActions: search[words]"


def test_page_length_and_strictness_reach_the_environment() -> None:
    short = ShopTasks(num_products=100, results_per_page=3)
    env = short.env(short.task("train", 0))
    env.step("search[leather]")
    assert len(env.page.results) == 3
    strict = ShopTasks(num_products=100, strict=True)
    assert " [SEP] " in strict.env(strict.task("train", 0)).observe()


def test_equal_seeds_give_equal_tasks() -> None:
    again = ShopTasks(num_products=400)
    assert [again.task("val", i) for i in range(20)] == [TASKS.task("val", i) for i in range(20)]


def test_bad_settings_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data.source.max_turns too small: expected at least 1, got 0"):
        ShopTasks(max_turns=0)
    with pytest.raises(ValueError, match="human_goals needs a catalogue folder"):
        ShopTasks(human_goals=True)
    with pytest.raises(ValueError, match="the generated catalogue takes its nouns by the rule, got nouns 'spacy'"):
        ShopTasks(nouns="spacy")
    with pytest.raises(FileNotFoundError, match="items_shuffle"):
        ShopTasks(str(tmp_path / "nowhere"))


def test_official_files_open_when_present() -> None:
    folder = Path(__file__).parents[3].parent / "shared" / "data" / "webshop-1k"
    if not folder.exists():
        pytest.skip("the official 1,000 products are not here: ../shared/data/webshop-1k")
    assert ShopTasks(str(folder)).size("test") == 500


def test_rewards_of_the_generated_shop_depend_on_no_other_package() -> None:
    assert TASKS.shop.nouns.of_pair("a", "red lamp", "b", "lamps")[2] == "rule"


def test_nouns_reach_the_shop_of_official_files(tmp_path: Path) -> None:
    products, instructions = generate(0, 40)
    (tmp_path / "items_shuffle.json").write_text(json.dumps([*products, {}]))
    (tmp_path / "items_ins_v2.json").write_text(json.dumps(instructions))
    (tmp_path / "nouns.json").write_text(json.dumps({"nouns": {"a": ["lamp"], "b": ["desk"]}}))
    data = WebShopData(str(tmp_path), nouns=str(tmp_path / "nouns.json"), skip_malformed=True)
    source = data.source
    assert isinstance(source, ShopTasks)
    assert source.shop.nouns.of_pair("a", "", "b", "") == (["lamp"], ["desk"], "pinned")
    with pytest.raises(ValueError, match="malformed product"):
        ShopTasks(str(tmp_path))


def test_baselines_within_too_few_turns_are_worth_nothing() -> None:
    short = ShopTasks(num_products=100, max_turns=2)
    assert short.baselines("val", [0, 3, 5]) == {"rule": 0.0, "oracle": 0.0, "reachable": 1.0}


def test_baselines_are_the_mean_rewards_of_the_rule_and_the_oracle_on_the_very_tasks() -> None:
    scores = TASKS.baselines("val", [0, 3, 5])
    rewards = [rule_baseline(TASKS.env(TASKS.task("val", index))).reward for index in (0, 3, 5)]
    assert scores == {"rule": pytest.approx(sum(rewards) / 3), "oracle": 1.0, "reachable": 1.0}
