"""Workers in real processes: the same trajectories as in one process, whatever their number, killed or not."""

import os
import signal
import time
from dataclasses import replace

import pytest
import torch

from lightning_mem1.callbacks.collector import Collector
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.rollout.workers.factory import make_workers
from lightning_mem1.rollout.workers.job import Job, Part, Plan, Weights, jobs_of
from lightning_mem1.rollout.workers.pool import MAX_TRIES
from lightning_mem1.rollout.workers.settings import WorkerSettings
from lightning_mem1.types import StopReason, Task
from tiny_tasks import DeadlyTasks, EvenTasks, UnpicklableTasks


def sampled(trajectories):
    return [[(turn.action_ids, turn.action_logprobs) for turn in t.turns] for t in trajectories]


def told(trajectories):
    return [(t.task.id, t.group, t.seed, t.stop_reason, t.reward, t.prompt_ids) for t in trajectories]


@pytest.fixture
def plan(make_module, make_data):
    """Makes a plan of the tiny policy and a task source."""

    def make(source=None, **changes):
        module, data = make_module(), make_data(source or EvenTasks())
        made = Plan(
            data.source_maker(), module.policy.source, module.lora, vars(module.compute), module.engine_settings,
            module.memory.settings, "cpu", 1,
        )  # fmt: skip
        return replace(made, **changes)

    return make


@pytest.fixture
def pool():
    """Makes pools that are closed whatever happens."""
    made = []

    def make(plan, count):
        made.append(make_workers(plan, WorkerSettings("processes", count)))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("count", [1, 2])
def test_workers_play_what_this_process_would_with_weights_that_change(make_module, make_data, plan, pool, count):
    module, data = make_module(), make_data(EvenTasks())
    workers, settings = pool(plan(), count), module.rollout_settings
    for rl_step in (1, 2):
        here = Collector(module, data).play(data.train_batch(rl_step), 3, settings)
        there = Collector(module, data, workers=workers).play(data.train_batch(rl_step), 3, settings)
        assert told(there) == told(here)
        for one, other in zip(sampled(here), sampled(there), strict=True):
            assert [ids for ids, _ in one] == [ids for ids, _ in other]
            for (_, mine), (_, theirs) in zip(one, other, strict=True):
                assert theirs == pytest.approx(mine, abs=1e-5)
        with torch.no_grad():
            for parameter in module.policy.trained().values():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    assert len(workers.crew.processes()) == count and workers.stats.restarts == 0


def test_a_worker_that_is_killed_is_replaced_and_its_job_comes_out_the_same(make_module, make_data, plan, pool):
    module, data = make_module(), make_data(EvenTasks(), tasks_per_step=4)
    batch, settings = data.train_batch(1), module.rollout_settings
    here = Collector(module, data).play(batch, 3, settings)
    workers, killed = pool(plan(), 2), []

    def kill_one():
        if not killed and workers.crew.processes():
            time.sleep(2)  # in the middle of getting ready or of playing
            killed.append(workers.crew.processes()[0])
            os.kill(killed[0], signal.SIGKILL)

    there = Collector(module, data, check=kill_one, workers=workers).play(batch, 3, settings)
    assert told(there) == told(here) and workers.stats.restarts == 1 and killed
    assert [[ids for ids, _ in one] for one in sampled(there)] == [[ids for ids, _ in one] for one in sampled(here)]


def test_a_job_that_kills_every_worker_fails_alone(make_module, make_data, plan, pool):
    module, data = make_module(), make_data(DeadlyTasks())
    workers = pool(plan(DeadlyTasks()), 1)
    played = Collector(module, data, workers=workers).play(data.train_batch(1), 1, module.rollout_settings)
    deadly = [t for t in played if t.task.id.endswith("deadly")]
    assert [t.stop_reason for t in deadly] == [StopReason.ERROR] and "3 processes in a row died" in deadly[0].error
    assert len(played) == 2 and all(t.turns for t in played if t not in deadly)
    assert workers.stats.restarts == MAX_TRIES


def test_a_worker_that_cannot_be_made_ends_the_run_in_one_line(plan, pool):
    workers = pool(plan(policy="nowhere/at/all"), 1)
    job = Job((Part(Task("a", "b", (), 1), 0, (0,)),), RolloutSettings())
    with pytest.raises(ValueError, match="^worker 0 failed: .*nowhere/at/all") as caught:
        workers.play([job], Weights.of(0, {}))
    assert "\n" not in str(caught.value)


def test_tasks_that_cannot_be_sent_are_refused_in_one_line(plan):
    with pytest.raises(ValueError, match="tasks that cannot be sent to workers: .* make_source") as caught:
        make_workers(plan(UnpicklableTasks()), WorkerSettings("processes", 1))
    assert "\n" not in str(caught.value)


def test_workers_end_with_the_process_that_trains(make_module, make_data, plan):
    module, data = make_module(), make_data(EvenTasks())
    workers = make_workers(plan(), WorkerSettings("processes", 1))
    Collector(module, data, workers=workers).play(data.train_batch(1), 1, module.rollout_settings)
    (process,) = workers.crew._processes.values()
    for end in workers.crew._ends.values():
        end.close()  # what the system does when a process is killed
    assert process.wait(timeout=60) == 0


@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_jobs_hold_every_task_once_and_in_order(num_workers):
    parts = [Part(Task(str(n), "", (), 1), n, (n, n + 100)) for n in range(13)]
    jobs = jobs_of(parts, RolloutSettings(), num_workers)
    assert [part for job in jobs for part in job.parts] == parts
    assert len(jobs) <= 4 * num_workers


def test_weights_have_the_same_key_only_when_they_are_the_same():
    state = {"a": torch.tensor([1.0, 2.0]), "b": torch.zeros(2, 2, dtype=torch.bfloat16)}
    other = {**state, "a": torch.tensor([1.0, 2.0 + 2**-22])}
    assert Weights.of(1, state).key == Weights.of(2, dict(reversed(state.items()))).key != Weights.of(1, other).key
