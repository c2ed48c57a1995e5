"""Games of TextArena as tasks, with the real package."""

import random

import numpy as np
import pytest
import yaml

pytest.importorskip("textarena", reason="the extra textarena is not installed")

from lightning_mem1.cli import fit  # noqa: E402
from lightning_mem1.environments.adapters.textarena import TextArenaTasks  # noqa: E402
from lightning_mem1.testing import check_env  # noqa: E402
from tiny_tasks import tiny_config  # noqa: E402

OFFERED = "lightning_mem1.environments.adapters.textarena.offered"


def number_of(env):
    """The number that a game of guessing has drawn."""
    env.observe()
    return env.game._game.state.game_state["game_number"]


def test_a_game_is_played_and_a_reply_is_only_what_is_new():
    source = TextArenaTasks("GuessTheNumber-v0")
    env = source.env(source.task("val", 3))
    assert env.observe().startswith("You are Player 0. You are playing Guess The Number.\n")
    number = number_of(env)
    other = 1 if number > 1 else 2
    result = env.step(str(other))
    assert result.information == f"The target number is {'higher' if other < number else 'lower'}."
    assert (result.reward, result.done, result.valid) == (0.0, False, True)
    assert env.observe() == result.information
    refused = env.step("a hundred")
    assert (
        not refused.valid and not refused.done and refused.info["invalid"].startswith("You attempted an invalid move")
    )
    won = env.step(f"[{number}]")
    assert (won.reward, won.done, won.valid, won.info["success"], won.information) == (1.0, True, True, 1.0, "")


def test_a_blank_action_is_no_move_and_costs_the_game_nothing():
    source = TextArenaTasks("GuessTheNumber-v0")
    env = source.env(source.task("val", 3))
    number = number_of(env)
    assert [env.step(" ").valid for _ in range(5)] == [False] * 5
    assert env.step(str(number)).reward == 1.0


def test_the_kit_finds_nothing_wrong_alone_and_against_an_opponent():
    source = TextArenaTasks("GuessTheNumber-v0")
    number = number_of(source.env(source.task("val", 0)))
    report = check_env(source, source.task("val", 0), actions=[str(number)], strangers=True)
    assert report.num_done >= 1
    source = TextArenaTasks("TicTacToe-v0", players=2, opponent=OFFERED)
    for index in (0, 1):
        report = check_env(
            source, source.task("val", index), strangers=True, player=lambda shown, rng: f"[{rng.randrange(9)}]"
        )
        assert report.num_done == 5


def test_the_agent_is_each_player_in_turn_and_the_opponent_moves_first_where_it_is_the_second():
    source = TextArenaTasks("TicTacToe-v0", players=2, opponent=OFFERED)
    first, second = (source.env(source.task("val", index)).observe() for index in (0, 1))
    assert "You are Player 0" in first and "placed their symbol" not in first
    assert "You are Player 1" in second and "Player 0 placed their symbol" in second
    assert source.task("val", 1).data["player"] == 1
    assert TextArenaTasks("TicTacToe-v0", players=2, opponent=OFFERED, player=0).task("val", 1).data["player"] == 0


def test_winning_pays_one_and_losing_costs_one():
    source = TextArenaTasks("Nim-v0", {"piles": [2, 1]}, players=2, player=0, opponent=OFFERED)
    lost = source.env(source.task("val", 0))
    lost.step("no move at all")
    result = lost.step("no move at all")
    assert (result.done, result.reward, result.info["success"]) == (True, -1.0, 0.0)
    won = TextArenaTasks("Nim-v0", {"piles": [1]}, players=2, player=0, opponent=OFFERED)
    result = won.env(won.task("val", 0)).step("[0 1]")
    assert (result.done, result.reward, result.info["success"]) == (True, 1.0, 1.0)


def test_episodes_and_the_process_draw_apart():
    source = TextArenaTasks("Minesweeper-v0-small")
    alone = source.env(source.task("train", 5))
    expected = [alone.observe(), *(alone.step(f"[{n} {n}]").information for n in range(3))]
    random.seed(1)
    np.random.seed(1)
    drawn = (random.random(), np.random.random())
    random.seed(1)
    np.random.seed(1)
    one, other = source.env(source.task("train", 5)), source.env(source.task("train", 6))
    seen = [one.observe()]
    other.observe()
    for n in range(3):
        seen.append(one.step(f"[{n} {n}]").information)
        other.step(f"[{n} {n}]")
    assert seen == expected
    assert (random.random(), np.random.random()) == drawn


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"id": "Nowhere-v0"},
            "no such TextArena game: .* got 'Nowhere-v0' .*not found in registry.*; set data.source.id",
        ),
        ({"id": "GuessTheNumber-v0", "kwargs": {"wings": 2}}, "no such TextArena game: .*'wings'"),
        ({"id": "TicTacToe-v0"}, "no such TextArena game: .* for 1 players, .*has to be 2, received 1"),
        (
            {"id": "TicTacToe-v0", "players": 2},
            "expected someone who plays the others, got none; set data.source.opponent",
        ),
        ({"id": "GuessTheNumber-v0", "opponent": OFFERED}, "expected none in a game for one, got one"),
        (
            {"id": "TicTacToe-v0", "players": 2, "player": 2, "opponent": OFFERED},
            "data.source.player from 0 to 1, got 2",
        ),
        ({"id": "GuessTheNumber-v0", "max_turns": 0}, "data.source.max_turns too small: expected at least 1, got 0"),
    ],
)
def test_what_cannot_be_played_is_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        TextArenaTasks(**settings)
    assert "\n" not in str(error.value)


def test_a_yaml_trains_in_it(tmp_path, monkeypatch, tiny_folder, capsys):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(str(tiny_folder), num_rl_steps=1)
    kind = "lightning_mem1.environments.adapters.textarena.TextArenaTasks"
    config["model"]["engine"]["max_context_tokens"] = 1024
    config["data"]["init_args"]["source"] = {
        "class_path": kind,
        "init_args": {"id": "KuhnPoker-v0", "players": 2, "opponent": OFFERED, "max_turns": 3},
    }
    (tmp_path / "poker.yaml").write_text(yaml.safe_dump(config))
    assert fit.main(["poker.yaml", "--trainer.logger=false"]) == 0
    assert "step    1/1" in capsys.readouterr().out
