"""The shop as a Gymnasium environment."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

gymnasium = pytest.importorskip("gymnasium", reason="the extra gym is not installed")

from gymnasium.utils.env_checker import check_env  # noqa: E402

from lightning_mem1.environments.webshop.baselines import oracle  # noqa: E402
from lightning_mem1.environments.webshop.gym import WebShopGym  # noqa: E402

ENV_ID = "lightning_mem1/WebShop-v0"
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("strict", [False, True])
def test_gymnasiums_own_checks_pass_without_a_warning(strict: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ENV_ID, num_products=100, strict=strict, render_mode="ansi").unwrapped)


def test_an_episode_is_the_shops() -> None:
    env = gymnasium.make(ENV_ID, num_products=100)
    observation, info = env.reset(seed=1)
    shop, goal = env.unwrapped.shop, env.unwrapped.shop.goals[info["goal"]]
    assert observation == f"Instruction: {goal.instruction}\nSearch page\nActions: search[words]"
    assert info["goal"] in shop.split("train")
    game = oracle(env.unwrapped._visit.__class__(shop, goal))
    for action in game.actions:
        observation, reward, terminated, truncated, info = env.step(action)
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, 1.0)


def test_a_seed_draws_the_goal_and_an_option_names_it() -> None:
    env = WebShopGym(num_products=100, split="test")
    assert [env.reset(seed=5)[1]["goal"] for _ in range(2)] == [env.reset(seed=5)[1]["goal"]] * 2
    drawn = {env.reset()[1]["goal"] for _ in range(40)}
    assert len(drawn) > 10 and drawn <= set(env.shop.split("test"))
    assert env.reset(options={"goal": 3})[1]["goal"] == 3


def test_by_product_reaches_the_environment() -> None:
    env = WebShopGym(num_products=100, split="val", rule="by_product")
    assert list(env.goals) == list(env.shop.split("val", "by_product"))


def test_turns_are_limited_and_invalid_actions_cost_one() -> None:
    env = WebShopGym(num_products=100, max_turns=2)
    env.reset(seed=0)
    assert env.step("dance")[2:4] == (False, False)
    *_, truncated, info = env.step("click[buy now]")
    assert (truncated, info["valid"]) == (True, False)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(gymnasium.error.ResetNeeded):
        WebShopGym(num_products=100).step("search[x]")
    for settings, message in (
        ({"render_mode": "human"}, "None or 'ansi', got 'human'"),
        ({"max_turns": 0}, "at least 1, got 0"),
        ({"human_goals": True}, "give catalogue"),
        ({"num_products": 1, "split": "test"}, "expected goals in split 'test'"),
    ):
        with pytest.raises(ValueError, match=message):
            WebShopGym(**settings)


@pytest.mark.parametrize(
    "how",
    [
        f"import lightning_mem1.environments.webshop.gym; name = '{ENV_ID}'",
        f"name = 'lightning_mem1.environments.webshop.gym:{ENV_ID}'",
    ],
)
def test_a_fresh_process_makes_it_by_its_name(how: str, tmp_path: Path) -> None:
    script = f"import gymnasium; {how}; print(gymnasium.make(name, num_products=50).reset(seed=0)[0][:13])"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "Instruction: \n"), done.stderr


def test_the_package_itself_never_imports_gymnasium(tmp_path: Path) -> None:
    script = "import sys, lightning_mem1.environments.webshop.tasks; print('gymnasium' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
