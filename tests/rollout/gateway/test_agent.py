"""Agents that end well, badly, late or not at all: whatever they do is data."""

import asyncio
import sys
import threading
import time

import pytest

from foreign import SpokenEngine, chat_policy, played
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.env_guard import EnvError
from lightning_mem1.rollout.episodes import BrokenEnv
from lightning_mem1.rollout.gateway.agent import AgentEnv, AgentSettings, num_arguments
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import StopReason
from tiny import WordEnv, task

pytest.importorskip("openai")

POLICY = chat_policy()
ENGINE = SpokenEngine(POLICY.tokenizer, lambda context: "ok")


def run(agent, count=1, **settings):
    return played(agent, count, POLICY, ENGINE, **settings)


async def ask(client, text="red"):
    return await client.completions.create(model="m", prompt=text)


@pytest.mark.parametrize(
    ("value", "reward", "info"),
    [
        (0.5, 0.5, {}),
        (True, 1.0, {}),
        ({"reward": 2, "success": 1.0, "words": "so"}, 2.0, {"success": 1.0, "words": "so"}),
    ],
)
def test_what_an_agent_returns_is_the_reward_of_its_last_turn(value, reward, info):
    async def agent(task, client):
        await ask(client)
        await ask(client, "blue")
        return value

    (trajectory,) = run(agent)
    assert [turn.reward for turn in trajectory.turns] == [0.0, reward]
    assert trajectory.turns[-1].info == info
    assert trajectory.success == info.get("success", 0.0)
    assert [turn.action for turn in trajectory.turns] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "or a dict with 'reward', got None"),
        ({"success": 1}, "or a dict with 'reward', got {'success': 1}"),
        ({"reward": "1"}, "or a dict with 'reward', got {'reward': '1'}"),
        (float("nan"), "or a dict with 'reward', got nan"),
        ("1", "or a dict with 'reward', got '1'"),
    ],
)
def test_a_reward_that_is_none_is_an_error_of_that_episode(value, problem):
    async def agent(task, client):
        await ask(client)
        return value if task.id == "tiny/0" else 1.0

    first, _, third = run(agent, 3)
    assert (first.stop_reason, first.reward) == (StopReason.ERROR, 0.0)
    assert first.error == f"ValueError: expected the agent to return a finite number, {problem}"
    assert (third.error, third.reward) == ("", 1.0)


def test_an_agent_that_fails_keeps_its_turns_and_says_where():
    async def agent(task, client):
        await ask(client)
        raise KeyError("lost")

    (trajectory,) = run(agent)
    assert (trajectory.stop_reason, trajectory.error) == (StopReason.ERROR, "KeyError: 'lost'")
    assert "test_agent.py:" in trajectory.error_at
    assert len(trajectory.turns) == 1


@pytest.mark.parametrize("kind", ["coroutine", "function"])
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration(), asyncio.CancelledError()])
def test_whatever_an_agent_raises_ends_its_own_episode(kind, error):
    def plain(task, client):
        client.completions.create(model="m", prompt="red")
        if task.id == "tiny/0":
            raise error
        return 1.0

    async def waiting(task, client):
        await ask(client)
        if task.id == "tiny/0":
            raise error
        return 1.0

    first, _, third = run(waiting if kind == "coroutine" else plain, 3)
    assert first.stop_reason == StopReason.ERROR
    assert type(error).__name__ in first.error or isinstance(error, StopIteration)
    assert (third.error, third.reward) == ("", 1.0)


def test_an_agent_without_a_call_of_the_policy_has_nothing_to_learn_from():
    async def agent(task, client):
        return 1.0

    (trajectory,) = run(agent)
    assert (
        trajectory.error == "ValueError: the agent ended without a call of the policy: expected at least one, got none"
    )
    assert (trajectory.turns, trajectory.prompt_ids) == ([], [])


def test_an_agent_that_takes_too_long_is_ended_and_its_client_locked_out():
    late = threading.Event()
    refused = []

    async def waiting(task, client):
        await ask(client)
        await asyncio.sleep(600)

    def plain(task, client):
        client.completions.create(model="m", prompt="red")
        late.wait(20)
        try:
            client.with_options(max_retries=0).completions.create(model="m", prompt="red")
        except Exception as error:
            refused.append(error)

    begun = time.monotonic()
    for agent in (waiting, plain):
        (trajectory,) = run(agent, timeout_s=0.5)
        assert (trajectory.stop_reason, len(trajectory.turns)) == (StopReason.ERROR, 1)
        assert trajectory.error == (
            "TimeoutError: expected the agent to end within 0.5 s, got nothing (data.timeout_s)"
        )
    assert time.monotonic() - begun < 60
    late.set()
    for _ in range(500):
        if refused:
            break
        time.sleep(0.01)
    assert refused and len(trajectory.turns) == 1  # nobody listens any more


def test_a_coroutine_that_does_not_let_itself_be_cancelled_holds_up_nobody():
    async def agent(task, client):
        await ask(client)
        while task.id == "tiny/0":
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                if "pytest" not in sys.modules:
                    raise
                await asyncio.sleep(0.2)
                return 9.0
        return 1.0

    first, _, third = run(agent, 3, timeout_s=0.5)
    assert (first.stop_reason, first.reward, third.reward) == (StopReason.ERROR, 0.0, 1.0)


def test_no_more_agents_run_at_once_than_are_allowed():
    running, most = [], []

    async def agent(task, client):
        running.append(task.id)
        most.append(len(running))
        await ask(client)
        running.remove(task.id)
        return 1.0

    assert [t.reward for t in run(agent, 7, max_running=2)] == [1.0] * 7
    assert max(most) == 2


def test_an_agent_with_a_third_argument_gets_the_environment_of_its_task():
    async def agent(task, client, env):
        seen = env.observe()
        await ask(client, seen)
        return env.step("red").reward

    (trajectory,) = run(agent, env=WordEnv(["red"]))
    assert (trajectory.reward, trajectory.error) == (1.0, "")
    assert trajectory.turns[0].action == "ok"


@pytest.mark.parametrize("agent", [lambda task: 1, lambda: 1, lambda a, b, c, d: 1])
def test_a_function_that_takes_no_task_and_client_is_one_line(agent):
    wanted = r"a task and a client: expected .*<lambda>\(task, client\) or .*; fix it"
    with pytest.raises(ValueError, match=wanted):
        num_arguments(agent)


def test_agents_and_environments_that_could_not_be_made_end_together():
    async def agent(task, client):
        await ask(client)
        return 1.0

    playable = AgentEnv(agent, AgentSettings(timeout_s=20))
    episodes = [Episode(task(), BrokenEnv(EnvError("ValueError: no shop"))), Episode(task(1), playable)]
    broken, fine = collect(episodes, ENGINE, POLICY.tokenizer, RolloutSettings(max_new_tokens=8), "recorded")
    assert (broken.stop_reason, broken.error) == (StopReason.ERROR, "ValueError: no shop")
    assert fine.reward == 1.0


def test_agents_send_contexts_of_their_own_in_no_other_memory_mode():
    episodes = [Episode(task(), AgentEnv(lambda task, client: 1, AgentSettings()))]
    with pytest.raises(ValueError, match="expected memory mode recorded, got 'mem1'; set model.memory"):
        collect(episodes, ENGINE, POLICY.tokenizer, RolloutSettings(), "mem1")


def test_turns_and_ends_are_reported_as_they_come():
    async def agent(task, client):
        await ask(client)
        await ask(client)
        return 1.0

    episodes = [Episode(task(i), AgentEnv(agent, AgentSettings(timeout_s=20)), i) for i in range(3)]
    turns, ends = [], []
    found = collect(
        episodes,
        ENGINE,
        POLICY.tokenizer,
        RolloutSettings(max_new_tokens=8),
        "recorded",
        lambda trajectory, turn: turns.append((trajectory.task.id, len(turn.action_ids))),
        lambda place, trajectory: ends.append((place, trajectory)),
    )
    assert sorted(turns) == [(f"tiny/{i}", 3) for i in range(3) for _ in range(2)]
    assert sorted(place for place, _ in ends) == [0, 1, 2]
    assert all(found[place] is trajectory for place, trajectory in ends)
