"""Environments of Gymnasium as tasks: what is read, what is written, and what cannot be."""

import subprocess
import sys

import numpy as np
import pytest
import yaml

pytest.importorskip("gymnasium", reason="the extra gym is not installed")

from gymnasium_worlds import SPACES  # noqa: E402
from lightning_mem1.cli import fit  # noqa: E402
from lightning_mem1.environments.adapters import spaces  # noqa: E402
from lightning_mem1.environments.adapters.gymnasium import GymnasiumTasks, plain  # noqa: E402
from lightning_mem1.testing import check_env  # noqa: E402
from lightning_mem1.types import StepResult  # noqa: E402
from tiny_tasks import tiny_config  # noqa: E402

LAKE = {
    "id": "FrozenLake-v1",
    "kwargs": {"render_mode": "ansi", "is_slippery": False},
    "actions": ["left", "down", "right", "up"],
    "success_at": 1.0,
}
WAY = ["down", "down", "right", "right", "down", "right"]


def corridor(**settings):
    return GymnasiumTasks("gymnasium_worlds:tests/Corridor-v0", **settings)


def test_a_lake_is_crossed_by_the_names_of_its_actions():
    source = GymnasiumTasks(**LAKE)
    task = source.task("val", 0)
    assert task.prompt == "Play FrozenLake-v1.\nActions: left, down, right, up"
    env = source.env(task)
    assert env.observe() == "[S]FFF\nFHFH\nFFFH\nHFFG"
    assert env.step("Down").information == "  (Down)\nSFFF\n[F]HFH\nFFFH\nHFFG"
    refused = env.step("jump")
    assert (refused.valid, refused.reward, refused.done) == (False, 0.0, False)
    assert refused.information == (
        "Invalid action: expected one of left, down, right, up.\n  (Down)\nSFFF\n[F]HFH\nFFFH\nHFFG"
    )
    results = [env.step(action) for action in WAY[1:]]
    assert [result.done for result in results] == [False] * 4 + [True]
    assert (results[-1].reward, results[-1].information, results[-1].info["success"]) == (1.0, "", 1.0)
    assert env.step("left") == StepResult("", done=True, valid=False, info={"invalid": "the episode is over"})


def test_the_kit_finds_nothing_wrong():
    source = GymnasiumTasks(**LAKE)
    assert check_env(source, source.task("val", 3), actions=WAY).num_done == 1
    source = corridor()
    report = check_env(source, source.task("val", 3), actions="1011111", player=lambda shown, rng: rng.choice("012"))
    assert report.num_done >= 1


def test_a_task_is_its_seed_and_no_two_tasks_share_one():
    source = corridor(num_train=5, num_val=3, num_test=2)
    seeds = [
        source.task(split, n).data["seed"] for split in ("train", "val", "test") for n in range(source.size(split))
    ]
    assert seeds == list(range(10))
    first, again, other = (source.env(source.task("train", n)).observe() for n in (1, 1, 2))
    assert first == again != other
    moved = corridor(num_train=5, num_val=3, num_test=2, seed=1)
    assert moved.task("train", 0).data["seed"] == 10
    with pytest.raises(IndexError, match="task index must be 0 to 2 in split 'val', got 3"):
        source.task("val", 3)


def test_numbers_are_written_with_their_names_and_success_is_taken_from_the_info():
    source = corridor(num_train=5, num_val=3, num_test=2)
    env = source.env(source.task("train", 0))
    light = np.random.Generator(np.random.PCG64(np.random.SeedSequence(0))).random(2).astype(np.float32)
    written = " ".join(np.format_float_positional(float(x), precision=4, trim="-") for x in light)
    assert env.observe() == f"at: 0\nlight: {written}"
    assert [env.step("1").info for _ in range(4)][-1] == {"is_success": True, "success": 1.0}


def test_functions_of_ones_own_read_and_write_what_is_no_text():
    source = GymnasiumTasks(
        "gymnasium_worlds:tests/Picture-v0",
        prompt="Walk.",
        render="gymnasium_worlds.render",
        parse="gymnasium_worlds.parse",
    )
    env = source.env(source.task("val", 0))
    assert (source.task("val", 0).prompt, env.observe()) == ("Walk.", "You are at 0 of 4.")
    assert [env.step("on").information for _ in range(3)][-1] == "You are at 3 of 4."
    assert env.step("up") == StepResult(
        "Invalid action: expected back or on.\nYou are at 3 of 4.", valid=False, info={"invalid": "expected back or on"}
    )
    assert env.step("on").reward == 1.0


@pytest.mark.parametrize(
    ("name", "text", "meant"),
    [
        ("digits", "2 3", [2, 3]),
        ("digits", "[0, 1]", [0, 1]),
        ("force", "0.5, -1", [0.5, -1.0]),
        ("word", "red", "red"),
        ("digits", "2 4", "expected 2 whole numbers, separated by spaces, each in its range"),
        ("digits", "1", "expected 2 whole numbers, separated by spaces"),
        ("digits", "1.5 0", "expected 2 whole numbers, separated by spaces"),
        ("force", "nan 0", "expected 2 numbers, separated by spaces"),
        ("force", "1e999 0", "expected 2 numbers, separated by spaces"),
        ("force", "2 0", "expected 2 numbers, separated by spaces, each in its range"),
        ("word", "crimson", "expected a text of 1 to 5 characters"),
    ],
)
def test_what_a_text_means_as_an_action(name, text, meant):
    if isinstance(meant, list) or meant == text:
        assert np.asarray(spaces.read(SPACES[name], [], text)).tolist() == meant
        return
    with pytest.raises(ValueError) as error:
        spaces.read(SPACES[name], [], text)
    assert str(error.value) == meant


def test_colours_of_a_terminal_become_brackets():
    assert plain("\x1b[41mS\x1b[0mF\n\x1b[1m\x1b[34mG\x1b[0m\x1b[K") == "[S]F\n[G]"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "Nowhere-v0"}, "no such Gymnasium environment: expected an id .* got 'Nowhere-v0' .*NameNotFound"),
        ({"id": "nowhere:Here-v0"}, "no such Gymnasium environment: .*No module named 'nowhere'"),
        ({"id": "CartPole-v1", "kwargs": {"wings": 2}}, "no such Gymnasium environment: .*wings"),
        ({"id": "CartPole-v1", "actions": ["left"]}, "expected 2 names, got 1; set data.source.actions"),
        ({"id": "CartPole-v1", "max_turns": 0}, "data.source.max_turns too small: expected at least 1, got 0"),
        ({"id": "CartPole-v1", "success_at": float("nan")}, "data.source.success_at is no number"),
        ({"id": "CartPole-v1", "render": "gymnasium_worlds.nobody"}, "no such function: expected 'nobody' in"),
        ({"id": "gymnasium_worlds:tests/Picture-v0"}, r"got Box\(32, 32, 3\); set data.source.render"),
        (
            {"id": "gymnasium_worlds:tests/Picture-v0", "render": "gymnasium_worlds.render"},
            "actions that no text names: .* got Dict; set data.source.parse",
        ),
    ],
)
def test_what_cannot_be_played_is_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        GymnasiumTasks(**settings)
    assert "\n" not in str(error.value)


def test_a_yaml_trains_in_it(tmp_path, monkeypatch, tiny_folder, capsys):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(str(tiny_folder), num_rl_steps=1)
    kind = "lightning_mem1.environments.adapters.gymnasium.GymnasiumTasks"
    config["data"]["init_args"]["source"] = {"class_path": kind, "init_args": {**LAKE, "max_turns": 3}}
    (tmp_path / "lake.yaml").write_text(yaml.safe_dump(config))
    assert fit.main(["lake.yaml", "--trainer.logger=false"]) == 0
    assert "step    1/1" in capsys.readouterr().out
    assert fit.main(["lake.yaml", "--trainer.logger=false", "--data.source.init_args.id=Nowhere-v0"]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ") and "no such Gymnasium environment" in said
    config["data"]["init_args"]["source"]["init_args"].pop("id")
    (tmp_path / "lake.yaml").write_text(yaml.safe_dump(config))
    assert fit.main(["lake.yaml", "--trainer.logger=false"]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said == (
        f"error: class '{kind}' in 'lake.yaml', line 8 lacks settings: expected a value of id, got none; "
        "set id below its init_args"
    )


def test_without_the_package_the_extra_is_named():
    script = (
        "import sys; sys.modules['gymnasium'] = None\n"
        "from lightning_mem1.environments.adapters.gymnasium import GymnasiumTasks\n"
        "GymnasiumTasks('CartPole-v1')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "ValueError: environments of Gymnasium need its package: expected gymnasium, got none; "
        "pip install 'lightning-mem1[gym]'"
    )
