"""Questions as a Gymnasium environment."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

gymnasium = pytest.importorskip("gymnasium", reason="the extra gym is not installed")

from gymnasium.utils.env_checker import check_env  # noqa: E402

from lightning_mem1.environments.qa.gym import QAGym  # noqa: E402
from lightning_mem1.environments.qa.tasks import EncyclopediaTasks  # noqa: E402

ENV_ID = "lightning_mem1/QA-v0"
ROOT = Path(__file__).parents[3]
SMALL = {"num_passages": 500, "hops": [1]}


def test_gymnasiums_own_checks_pass_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ENV_ID, render_mode="ansi", **SMALL).unwrapped)


def test_an_episode_is_that_of_the_task():
    env, tasks = gymnasium.make(ENV_ID, objectives=1, **SMALL), EncyclopediaTasks(objectives=1, **SMALL)
    observation, info = env.reset(options={"task": 3})
    task = tasks.task("train", 3)
    assert (observation, info) == (task.prompt, {"task": 3})
    query = f"search[{task.objectives[0].question}]"
    observation, reward, terminated, truncated, info = env.step(query)
    assert observation == tasks.env(task).step(query).information
    assert (reward, terminated, truncated, info["valid"]) == (0.0, False, False, True)
    _, reward, terminated, truncated, info = env.step(f"answer[{task.objectives[0].answers[0]}]")
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, 1.0)


def test_a_seed_draws_the_task_and_turns_are_limited():
    env = QAGym(split="test", max_turns=2, **SMALL)
    assert [env.reset(seed=5)[1]["task"] for _ in range(2)] == [env.reset(seed=5)[1]["task"]] * 2
    assert len({env.reset()[1]["task"] for _ in range(40)}) > 10
    assert env.step("dance")[2:4] == (False, False)
    *_, truncated, info = env.step("search[x]")
    assert (truncated, info["valid"]) == (True, False)


def test_a_source_of_ones_own_is_taken_as_it_is():
    source = EncyclopediaTasks(objectives=3, **SMALL)
    assert QAGym(source).reset(options={"task": 0})[0] == source.task("train", 0).prompt


def test_what_cannot_be_is_refused():
    with pytest.raises(gymnasium.error.ResetNeeded):
        QAGym(**SMALL).step("search[x]")
    for settings, message in (
        ({"render_mode": "human"}, "None or 'ansi', got 'human'"),
        ({"objectives": 0}, "at least 1, got 0"),
        ({"split": "none"}, "expected tasks in split 'none'"),
        ({"source": EncyclopediaTasks(**SMALL), "objectives": 2}, "do not belong to a source, got objectives"),
    ):
        with pytest.raises(ValueError, match=message):
            QAGym(**settings)


def test_a_fresh_process_makes_it_by_its_name(tmp_path):
    name = f"lightning_mem1.environments.qa.gym:{ENV_ID}"
    script = f"import gymnasium; print(gymnasium.make('{name}', num_passages=500).reset(seed=0)[0][:2])"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1 \n"), done.stderr
