"""Workers that play ahead, in real processes: nothing is lost or played for somebody else, whatever comes between."""

import os
import signal
import time
from dataclasses import replace

import pytest
import torch

from lightning_mem1.callbacks.collector import Collector, staleness_numbers
from lightning_mem1.callbacks.look_ahead import LookAhead
from lightning_mem1.rollout.workers.factory import make_workers
from lightning_mem1.rollout.workers.job import Plan
from lightning_mem1.rollout.workers.job_queue import JobQueue
from lightning_mem1.rollout.workers.settings import WorkerSettings
from lightning_mem1.types import StopReason, Task, Trajectory, Turn
from tiny_tasks import SlowTasks


def ids(trajectories):
    return [[turn.action_ids for turn in t.turns] for t in trajectories]


def told(trajectories):
    return [(t.task.id, t.group, t.seed, t.stop_reason, t.reward, len(t.turns)) for t in trajectories]


def versions(trajectories):
    return [[turn.version for turn in t.turns] for t in trajectories]


def until(ready):
    while not ready():
        time.sleep(0.01)


@pytest.fixture
def playing_ahead(make_module, make_data):
    """A module, its tasks, and a collector whose one worker plays two rl_steps ahead."""
    module, data = make_module(), make_data(SlowTasks())
    plan = Plan(
        data.source_maker(), module.policy.source, module.lora, vars(module.compute), module.engine_settings,
        module.memory.settings, "cpu", 1,
    )  # fmt: skip
    queue = make_workers(plan, WorkerSettings("processes", 1, max_staleness=2))
    assert isinstance(queue, JobQueue)
    yield module, data, Collector(module, data, workers=queue), queue
    queue.close()
    assert queue.crew.processes() == [] and not queue._thread.is_alive()


def test_episodes_under_way_are_continued_with_newer_weights_and_others_go_in_front(playing_ahead, make_module):
    module, data, collector, queue = playing_ahead
    ahead, alone = LookAhead(2), Collector(make_module(), data)
    expected = [alone.collect(data.train_batch(rl_step)).trajectories for rl_step in (1, 2, 3)]
    ahead.begin(collector, 1)
    assert ahead.begun == 3 and len(queue._begun) == 3 * 2, "three rl_steps of two tasks"
    first = collector.collect(data.train_batch(1))
    until(lambda: queue._shift.working)  # a job of rl_step 2 has begun with weights 0
    with torch.no_grad():
        for parameter in module.policy.trained().values():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    module.rl_step = 1
    ahead.begin(collector, 2)
    greedy = replace(module.rollout_settings, temperature=0.0)
    validation = collector.play(data.train_batch(1), 1, greedy)
    assert {version for each in versions(validation) for version in each} == {1}
    waiting = [queue._begun[number] for number in queue._shift.waiting if number in queue._begun]
    assert waiting, "rl_step 3 waited while the validation was played"
    second, third = (collector.collect(data.train_batch(rl_step)) for rl_step in (2, 3))
    assert told(first.trajectories) == told(expected[0]) and ids(first.trajectories) == ids(expected[0])
    assert {version for each in versions(first.trajectories) for version in each} == {0}
    for found, here in zip((second, third), expected[1:], strict=True):
        assert [each[:3] for each in told(found.trajectories)] == [each[:3] for each in told(here)]
    assert {0, 1} == {version for each in versions(second.trajectories) for version in each}
    mixed = [each for each in versions(second.trajectories) if len(set(each)) > 1]
    assert mixed and all(each == sorted(each) for each in mixed)
    numbers = second.numbers()
    assert numbers["rollout/staleness_max"] == 1 and 0 < numbers["rollout/staleness"] < 1
    assert numbers["rollout/mixed_share"] == len(mixed) / 6 and 0 <= numbers["rollout/waiting_share"] < 1
    assert third.numbers()["rollout/staleness"] == 1, "weights 1 play rl_step 3, which weights 2 learn from"
    assert queue._begun == {} and queue._shift.done == {}, "nothing is kept"


def test_a_worker_that_is_killed_while_it_plays_ahead_costs_no_episode(playing_ahead, make_module):
    module, data, collector, queue = playing_ahead
    LookAhead(2).begin(collector, 1)
    until(lambda: queue._shift.working and queue.crew.processes())
    os.kill(queue.crew.processes()[0], signal.SIGKILL)
    found = [collector.collect(data.train_batch(rl_step)).trajectories for rl_step in (1, 2, 3)]
    alone = Collector(make_module(), data)
    for rl_step, played in enumerate(found, start=1):
        assert ids(played) == ids(alone.collect(data.train_batch(rl_step)).trajectories)
    assert queue.stats.restarts == 1


def test_jobs_that_nobody_wants_any_more_are_given_up(playing_ahead):
    module, data, collector, queue = playing_ahead
    LookAhead(2).begin(collector, 1)
    queue.forget()
    assert not queue._shift.waiting and not queue._begun
    assert len(collector.play(data.train_batch(3), 1, module.rollout_settings)) == 2


def test_a_worker_that_cannot_be_made_ends_the_run_where_somebody_waits(playing_ahead, make_data):
    module, data, _, _ = playing_ahead
    plan = Plan(
        data.source_maker(), "nowhere/at/all", module.lora, {}, module.engine_settings, module.memory.settings, "cpu", 1
    )
    queue = make_workers(plan, WorkerSettings("processes", 1, max_staleness=1))
    collector = Collector(module, data, workers=queue)
    LookAhead(1).begin(collector, 1)
    with pytest.raises(ValueError, match="^worker 0 failed: .*nowhere/at/all"):
        collector.collect(data.train_batch(1))
    queue.close()


def test_staleness_is_counted_by_tokens_turns_and_episodes():
    def episode(*turns):
        made = [Turn(list(range(length)), [0.0] * length, version=version) for length, version in turns]
        return Trajectory(Task("t", "", (), 1), [], made, StopReason.DONE)

    played = [episode((1, 2), (3, 3)), episode((4, 4)), episode()]
    assert staleness_numbers(played, rl_step=5) == {  # lags 2, 1, 0 of 1, 3 and 4 tokens
        "rollout/staleness": pytest.approx(5 / 8),
        "rollout/staleness_max": 2.0,
        "rollout/mixed_share": pytest.approx(1 / 3),
    }
