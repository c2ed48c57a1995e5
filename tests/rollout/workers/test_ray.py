"""Workers as actors of a real Ray, started on this machine."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from lightning_mem1.callbacks.collector import Collector
from lightning_mem1.callbacks.look_ahead import LookAhead
from lightning_mem1.rollout.workers.factory import make_workers
from lightning_mem1.rollout.workers.job import Plan
from lightning_mem1.rollout.workers.settings import WorkerSettings
from tiny_tasks import EvenTasks, SlowTasks

ray = pytest.importorskip("ray", reason="Ray is not installed (extra ray)")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two CPUs by name: none of the machine is taken away from other tests."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
    yield
    ray.shutdown()


def plan_of(module, data, policy=None):
    """What the workers of a module are made of, on the CPU."""
    return Plan(
        data.source_maker(), policy or module.policy.source, module.lora, vars(module.compute), module.engine_settings,
        module.memory.settings, "cpu", 1,
    )  # fmt: skip


def ids(trajectories):
    return [[turn.action_ids for turn in t.turns] for t in trajectories]


def test_two_actors_play_what_this_process_would_and_one_that_is_killed_is_replaced(make_module, make_data, cluster):
    module, data = make_module(), make_data(EvenTasks(), tasks_per_step=4)
    plan = plan_of(module, data)
    batch, settings = data.train_batch(1), module.rollout_settings
    here = Collector(module, data).play(batch, 2, settings)
    workers = make_workers(plan, WorkerSettings("ray", 2, resources={"num_cpus": 1.0}))
    try:
        there = Collector(module, data, workers=workers).play(batch, 2, settings)
        assert ids(there) == ids(here) and workers.stats.restarts == 0
        os.kill(ray.get(workers.crew.actor(0).pid.remote()), signal.SIGKILL)
        again = Collector(module, data, workers=workers).play(batch, 2, settings)
        assert ids(again) == ids(here) and workers.stats.restarts == 1
        assert [t.seed for t in again] == [t.seed for t in here]
    finally:
        workers.close()
    assert ray.is_initialized(), "a cluster that was there before stays"


def test_an_actor_that_cannot_be_made_ends_the_run_in_one_line(make_module, make_data, cluster):
    module, data = make_module(), make_data(EvenTasks())
    plan = plan_of(module, data, "nowhere/at/all")
    workers = make_workers(plan, WorkerSettings("ray", 1))
    with pytest.raises(ValueError, match="^worker 0 failed: .*nowhere/at/all") as caught:
        Collector(module, data, workers=workers).play(data.train_batch(1), 1, module.rollout_settings)
    assert "\n" not in str(caught.value)
    workers.close()


def test_actors_that_play_ahead_continue_their_episodes_with_newer_weights(make_module, make_data, cluster):
    module, data = make_module(), make_data(SlowTasks())
    plan = plan_of(module, data)
    queue = make_workers(plan, WorkerSettings("ray", 1, resources={"num_cpus": 1.0}, max_staleness=2))
    try:
        collector, ahead = Collector(module, data, workers=queue), LookAhead(2)
        ahead.begin(collector, 1)
        first = collector.collect(data.train_batch(1))
        while not queue._shift.working:
            time.sleep(0.01)
        with torch.no_grad():
            for parameter in module.policy.trained().values():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        module.rl_step = 1
        ahead.begin(collector, 2)
        second = collector.collect(data.train_batch(2))
    finally:
        queue.close()
    assert {turn.version for t in first.trajectories for turn in t.turns} == {0}
    assert {turn.version for t in second.trajectories for turn in t.turns} == {0, 1}
    assert all(len(t.turns) == 4 for t in second.trajectories)


def test_a_cluster_that_is_too_small_for_all_workers_says_so(make_module, make_data, cluster):
    module, data = make_module(), make_data(EvenTasks())
    plan = plan_of(module, data)
    with pytest.warns(UserWarning, match="not all of 3 Ray workers can run: expected num_cpus 3, got 2 in the cluster"):
        make_workers(plan, WorkerSettings("ray", 3, resources={"num_cpus": 1.0})).close()


def run(config, folder, *options, **more):
    """A `fit` with Ray workers in a process of its own."""
    command = [sys.executable, "-u", "-m", "lightning_mem1.fit", config, *options]
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    env.pop("RAY_ADDRESS", None)
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize(
    "workers, reason",
    [
        ("{kind: ray, count: 1, resources: {no_such_thing: 1}}", "expected no_such_thing 1, got 0 in the cluster; set"),
        ("{kind: ray, count: 1, address: '127.0.0.1:1'}", "no Ray cluster: expected one at '127.0.0.1:1', got "),
    ],
)
def test_workers_that_can_never_start_are_one_line(config, tmp_path, workers, reason):
    with run(config, tmp_path, "--model.rollout.workers", workers) as process:
        said = process.stdout.read()
    assert process.returncode == 1 and reason in said.splitlines()[-1]


def test_a_sigterm_ends_a_run_with_ray_workers_with_a_checkpoint(config, tmp_path):
    workers = "{kind: ray, count: 1, resources: {num_cpus: 0}}"
    with run(config, tmp_path, "--model.rollout.workers", workers, "--data.num_rl_steps", "500") as process:
        said = ""
        while "step " not in said and (line := process.stdout.readline()):
            said += line
        process.send_signal(signal.SIGTERM)
        said += process.stdout.read()
    assert process.returncode == 0, said
    assert [*tmp_path.rglob("last.ckpt")], said
