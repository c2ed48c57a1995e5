"""Environments behind an OpenEnv server as tasks, with the real client and server on loopback."""

import gc
import threading

import pytest
import yaml

pytest.importorskip("openenv.core", reason="the extra openenv is not installed")

from lightning_mem1.cli import fit  # noqa: E402
from lightning_mem1.environments.adapters.openenv import OpenEnvTasks, written  # noqa: E402
from lightning_mem1.testing import check_env  # noqa: E402
from lightning_mem1.types import StepResult  # noqa: E402
from openenv_worlds import served, walks  # noqa: E402
from tiny_tasks import tiny_config  # noqa: E402

WALK = {"parse": "openenv_worlds.parse"}


@pytest.fixture(scope="module")
def url():
    with served(walks()) as address:
        yield address


def test_an_episode_is_a_session_that_the_tasks_seed_begins(url):
    source = OpenEnvTasks(url, **WALK, prompt="Walk.", num_train=5)
    task = source.task("train", 3)
    assert (task.prompt, task.data["seed"]) == ("Walk.", 3)
    env = source.env(task)
    assert env.observe() == "at: 0\ngoal: 4"
    assert env.step("3") == StepResult("at: 3\ngoal: 4", info={"success": 0.0})
    assert env.step("on") == StepResult(
        "Invalid action: expected a number of steps.\nat: 3\ngoal: 4",
        valid=False,
        info={"invalid": "expected a number of steps"},
    )
    assert env.step("1") == StepResult("", 1.0, done=True, info={"success": 1.0})
    assert env.step("1").info == {"invalid": "the episode is over"}


def test_reset_takes_arguments_of_its_own_and_a_function_writes_what_is_seen(url):
    source = OpenEnvTasks(url, **WALK, render="openenv_worlds.render", reset={"far": 40})
    assert source.env(source.task("train", 3)).observe() == "44 steps to go"


def test_the_kit_finds_nothing_wrong(url):
    source = OpenEnvTasks(url, **WALK)
    report = check_env(
        source, source.task("train", 3), actions=["3", "1"], player=lambda shown, rng: str(rng.randint(0, 3))
    )
    assert report.num_done >= 1


def test_episodes_that_are_over_or_given_up_leave_no_session_behind(url):
    with served(walks(max_sessions=2)) as small:
        source = OpenEnvTasks(small, **WALK)
        for _ in range(3):
            ended, left = (source.env(source.task("train", 3)) for _ in range(2))
            left.observe()
            assert ended.step("4").done
            del left
            gc.collect()
        source.env(source.task("train", 3)).step("4")  # waits for what is being closed
        assert not [thread for thread in threading.enumerate() if "openenv" in thread.name]
        held = [source.env(source.task("train", 3)) for _ in range(3)]
        assert [env.observe() for env in held[:2]] == ["at: 0\ngoal: 4"] * 2
        with pytest.raises(Exception, match="CAPACITY_REACHED|at capacity"):
            held[2].observe()


def test_an_action_that_the_server_does_not_take_is_invalid_and_its_errors_end_the_episode(url):
    source = OpenEnvTasks(url, parse="openenv_worlds.unfit")
    result = source.env(source.task("train", 3)).step("three")
    assert (result.valid, result.information) == (False, "Invalid action: the environment takes no such action.")
    source = OpenEnvTasks(url, **WALK)
    with pytest.raises(RuntimeError, match="too far"):
        source.env(source.task("train", 3)).step("999")


def test_the_only_text_of_an_observation_is_all_of_it():
    assert written({"echoed": "hi", "metadata": {"n": 1}, "valid": True}) == "hi"
    assert written({"board": [1, 2], "hint": "left", "score": None}) == "board: [1, 2]\nhint: left"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "127.0.0.1:8000"}, "expected data.source.url to begin with http:// or https://, got '127.0.0.1:8000'"),
        ({"url": "http://127.0.0.1:9"}, "no OpenEnv server that answers: .*; start it, or set data.source.url"),
        ({}, "got null with the fields steps, note, mood; set it, or data.source.parse"),
        ({"action": "jump"}, "got jump with the fields steps, note, mood; set it, or data.source.parse"),
        ({**WALK, "splits": {"val": "here"}}, "walk/num_tasks to give its own tasks .*status 501"),
        ({**WALK, "splits": {"here": "val"}}, "expected train, val or test in data.source.splits, got 'here'"),
        ({**WALK, "timeout_s": 0}, "data.source.timeout_s too small: expected more than 0, got 0"),
    ],
)
def test_what_cannot_be_played_is_one_line(url, settings, message):
    with pytest.raises(ValueError, match=message) as error:
        OpenEnvTasks(**{"url": url, **settings}).size("train")
    assert "\n" not in str(error.value)


def test_a_yaml_trains_in_it_and_a_server_that_is_away_is_one_line(url, tmp_path, monkeypatch, tiny_folder, capsys):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(str(tiny_folder), num_rl_steps=1)
    kind = "lightning_mem1.environments.adapters.openenv.OpenEnvTasks"
    settings = {"url": url, "action": "note", "max_turns": 2}
    config["data"]["init_args"]["source"] = {"class_path": kind, "init_args": settings}
    (tmp_path / "walk.yaml").write_text(yaml.safe_dump(config))
    assert fit.main(["walk.yaml", "--trainer.logger=false"]) == 0
    assert "step    1/1" in capsys.readouterr().out
    settings["url"] = "http://127.0.0.1:9"
    (tmp_path / "away.yaml").write_text(yaml.safe_dump(config))
    assert fit.main(["away.yaml", "--trainer.logger=false"]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: no OpenEnv server that answers: expected http://127.0.0.1:9/schema")
