"""Task sources as OpenEnv servers, with the real client: the shop, the questions, and this package's own adapter."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

core = pytest.importorskip("openenv.core", reason="the extra openenv is not installed")

from lightning_mem1.cli import serve_openenv  # noqa: E402
from lightning_mem1.engine.local.engine import LocalEngine  # noqa: E402
from lightning_mem1.engine.settings import EngineSettings  # noqa: E402
from lightning_mem1.environments.adapters import openenv_server  # noqa: E402
from lightning_mem1.environments.adapters.openenv import OpenEnvTasks  # noqa: E402
from lightning_mem1.environments.qa.tasks import EncyclopediaTasks  # noqa: E402
from lightning_mem1.environments.webshop.baselines import oracle  # noqa: E402
from lightning_mem1.environments.webshop.tasks import ShopTasks  # noqa: E402
from lightning_mem1.rollout.collect import Episode, collect  # noqa: E402
from lightning_mem1.rollout.settings import RolloutSettings  # noqa: E402
from lightning_mem1.testing import check_env  # noqa: E402
from lightning_mem1.training.loading import load_policy  # noqa: E402
from openenv_worlds import served  # noqa: E402

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def questions():
    return EncyclopediaTasks(num_passages=500, objectives=1, hops=[1])


@pytest.fixture(scope="module")
def url(questions):
    with served(openenv_server.app(questions, "qa", max_sessions=8)) as address:
        yield address


def test_the_real_client_answers_a_question(url, questions):
    task = questions.task("val", 3)
    with core.GenericEnvClient(url).sync() as client:
        begun = client.reset(split="val", index=3)
        assert (begun.observation["text"], begun.done) == (task.prompt, False)
        assert begun.metadata == {"task": task.id, "max_turns": 6}
        query = f"search[{task.objectives[0].question}]"
        found = client.step({"action": query})
        assert found.observation["text"] == questions.env(task).step(query).information
        assert (found.reward, found.done, found.metadata["turns_left"]) == (0.0, False, 5)
        assert client.step({"action": "dance"}).observation["valid"] is False
        ended = client.step({"action": f"answer[{task.objectives[0].answers[0]}]"})
        assert (ended.reward, ended.done, ended.metadata["success"]) == (1.0, True, 1.0)
        assert client.state() == {"episode_id": task.id, "step_count": 3}
        assert client.reset(split="test", index=0).observation["text"] == questions.task("test", 0).prompt


def test_a_purchase_is_what_it_is_in_the_shop():
    shop = ShopTasks(num_products=100)
    task = shop.task("train", 2)
    played = oracle(shop._visit(task))
    with served(openenv_server.app(shop, "webshop")) as address, core.GenericEnvClient(address).sync() as client:
        begun = client.reset(split="train", index=2)
        assert begun.observation["text"] == f"{task.prompt}\n{shop.env(task).observe()}"
        results = [client.step({"action": action}) for action in played.actions]
    assert [result.done for result in results] == [False] * (len(results) - 1) + [True]
    assert (results[-1].reward, results[-1].metadata["success"]) == (played.reward, 1.0)


def test_a_seed_draws_the_task_and_turns_are_limited(url):
    with core.GenericEnvClient(url).sync() as client:
        drawn = [client.reset(seed=seed).metadata["task"] for seed in (1, 1, 2)]
        assert drawn[0] == drawn[1] != drawn[2]
        done = [client.step({"action": "search[x]"}).done for _ in range(6)]
        assert done == [False] * 5 + [True]
        with pytest.raises(RuntimeError, match="expected reset before step"):
            client.step({"action": "search[x]"})


def test_bad_requests_get_an_answer_and_end_nothing(url):
    with core.GenericEnvClient(url).sync() as client:
        for wrong, why in (
            (lambda: client.step({"action": "search[x]"}), "expected reset before step"),
            (lambda: client.reset(split="none"), "expected one of train, val, test, got 'none'"),
            (lambda: client.reset(split="val", index=10**6), "expected an index from 0 to"),
            (lambda: client.step({"words": "x"}), "VALIDATION_ERROR"),
        ):
            with pytest.raises(RuntimeError, match=why):
                wrong()
        assert client.reset(seed=0).observation["valid"] is True


def test_sessions_do_not_share_an_episode(url):
    with core.GenericEnvClient(url).sync() as one, core.GenericEnvClient(url).sync() as other:
        first, second = (client.reset(split="val", index=n) for n, client in enumerate((one, other)))
        assert first.observation != second.observation
        one.step({"action": "answer[x]"})
        assert not other.step({"action": "search[x]"}).done


def test_the_adapter_plays_the_servers_own_tasks(url, questions):
    source = OpenEnvTasks(url, splits={"train": "train", "val": "val"})
    assert [source.size(split) for split in ("train", "val", "test")] == [
        questions.size("train"), questions.size("val"), 0,
    ]  # fmt: skip
    env, task = source.env(source.task("val", 3)), questions.task("val", 3)
    assert env.observe() == task.prompt
    answer = f"answer[{task.objectives[0].answers[0]}]"
    assert env.step(answer).reward == 1.0
    assert check_env(source, source.task("val", 3), actions=["search[x]", answer], strangers=True).num_done >= 1


def test_episodes_through_a_server_are_those_of_the_shop_itself():
    """The bundled policy shops in both: the same ids, log-probabilities and rewards, to the last bit."""
    policy, shop = load_policy("bundled"), ShopTasks(num_products=100)
    engine = LocalEngine(policy, EngineSettings(num_slots=4, max_context_tokens=1024))
    settings = RolloutSettings(prompt="brief", temperature=1.0, max_new_tokens=48, max_information_tokens=256)

    def played(source):
        episodes = [Episode(task := source.task("train", n), source.env(task), n, n) for n in range(3)]
        return [
            (t.prompt_ids, [replace(turn, info={}) for turn in t.turns], t.stop_reason, t.error)
            for t in collect(episodes, engine, policy.tokenizer, settings)
        ]

    with served(openenv_server.app(shop, "webshop")) as address:
        remote = played(OpenEnvTasks(address, splits={"train": "train"}, max_turns=10))
    native = played(shop)
    assert remote == native and sum(len(turns) for _, turns, _, _ in native) > 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--world", "market"],
            "expected one of webshop, qa, reading, or the dotted name of a task source, got 'market'",
        ),
        (["--world", "qa", "--settings", "5"], "no settings of qa: expected a YAML mapping"),
        (["--world", "qa", "--settings", "{a: "], "no settings of qa: expected a YAML mapping"),
        (["--world", "qa", "--settings", "{wings: 2}"], "unexpected keyword argument 'wings'"),
        (["--world", "webshop", "--settings", "{num_products: 0}"], "data.num_products too small: expected at least 1"),
        (["--world", "webshop", "--port", "99999999"], "--port too large"),
        (["--world", "nobody.Tasks"], "no such task source: .* there is no module 'nobody'; set --world"),
    ],
)
def test_a_command_line_that_cannot_be_served_is_one_line(arguments, message, capsys):
    assert serve_openenv.main(arguments) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ")
    with pytest.raises(ValueError, match=message):
        raise ValueError(said)


def test_the_command_serves_until_it_is_interrupted():
    world = "lightning_mem1.environments.reading.tasks.ReadingTasks"
    line = [sys.executable, "-m", "lightning_mem1", "serve-openenv", "--world", world, "--port", "0"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    try:
        said = process.stdout.readline()
        assert said.startswith(f"serving 1,000,000 training tasks of {world} at http://127.0.0.1:"), said
        with core.GenericEnvClient(said.split()[-1]).sync() as client:
            assert client.reset(split="train", index=4).metadata["task"].endswith("/4")
    finally:
        process.send_signal(signal.SIGINT)
        left = process.communicate(timeout=30)[1]
    assert process.returncode in (0, 130) and "Traceback" not in left, left
