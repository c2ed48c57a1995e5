"""Training on several ranks: the same numbers as on one, nobody waits for a rank that has less to do or has failed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
OWN = ("rollout/seconds", "rollout/num_episodes", "rollout/tokens_per_s", "memory/process_gib")  # of one rank
MEASURED = ("seconds_per_episode", "wait_seconds")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_folder):
    """The folder of `ranks.py`, which has trained everything."""
    folder = tmp_path_factory.mktemp("ranks")
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-W", "ignore", str(ROOT / "tests/ranks.py"), str(tiny_folder), str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def codes(trained, name):
    return torch.load(trained / "codes.pt", weights_only=True)[name]


def found(trained, name, rank=0):
    assert codes(trained, name)[rank] == 0, (trained / name / f"{rank}.err").read_text()[-3000:]
    return torch.load(trained / name / f"{rank}.pt", weights_only=True)


def test_ranks_share_the_tasks_of_an_rl_step_and_none_is_played_twice(trained):
    (alone,) = [found(trained, "grpo1")["tasks"]]
    first, second = (found(trained, "grpo2", rank)["tasks"] for rank in (0, 1))
    for whole, a, b in zip(alone, first, second, strict=True):
        assert len(a) == 2 and len(b) == 1
        assert sorted(a + b) == sorted(whole) and not set(a) & set(b)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_two_ranks_have_the_gradients_and_the_metrics_of_one(trained, algorithm):
    one, first, second = (found(trained, f"{algorithm}{n}", rank) for n, rank in ((1, 0), (2, 0), (2, 1)))
    assert len(one["gradients"]) == 2 and one["gradients"][0].keys() == first["gradients"][0].keys()
    for name, gradient in one["gradients"][0].items():
        torch.testing.assert_close(first["gradients"][0][name], gradient, rtol=1e-4, atol=1e-7)
    shared = one["metrics"][0].keys() - {*OWN, *(f"{room}/{key}" for room in ("rollout", "val") for key in MEASURED)}
    assert {"train/loss", "train/grad_norm", "rollout/reward", "memory/peak_tokens_max"} <= shared
    for key in shared:
        assert first["metrics"][0][key] == pytest.approx(one["metrics"][0][key], rel=1e-4, abs=1e-6, nan_ok=True), key
    for name in first["adapter"]:
        assert torch.equal(first["adapter"][name], second["adapter"][name])  # nobody drifts


def test_the_workers_of_the_first_rank_play_for_all(trained):
    own, there, second = (found(trained, name, rank) for name, rank in (("grpo2", 0), ("workers", 0), ("workers", 1)))
    assert there["tasks"] == own["tasks"]
    for before, after in zip(own["metrics"], there["metrics"], strict=True):
        for key in before.keys() - {*OWN, *(f"{room}/{name}" for room in ("rollout", "val") for name in MEASURED)}:
            assert after[key] == pytest.approx(before[key], rel=1e-4, abs=1e-6, nan_ok=True), key
        assert after["rollout/worker_restarts"] == 0 and 0 <= after["rollout/waiting_share"] < 1
    for name, weights in there["adapter"].items():
        assert torch.equal(weights, second["adapter"][name])
        torch.testing.assert_close(weights, own["adapter"][name], rtol=1e-3, atol=1e-5)


def test_a_validation_is_averaged_over_ranks(trained):
    one, two = (found(trained, name)["metrics"][0] for name in ("grpo1", "grpo2"))
    assert two["val/reward"] == one["val/reward"] == 0.5
    assert two["val/peak_tokens_mean"] == pytest.approx(one["val/peak_tokens_mean"])


def test_a_rank_with_nothing_to_learn_from_keeps_nobody_waiting(trained):
    for rank in (0, 1):
        metrics = found(trained, "uneven", rank)["metrics"][-1]
        assert metrics["train/zero_signal_groups"] == 1 and metrics["train/empty_trajectories"] == 1


def test_a_rank_that_fails_ends_the_others_too_and_the_last_checkpoint_is_whole(trained):
    assert all(codes(trained, "failing")) and codes(trained, "failing")[0] != -14  # not by the time limit
    assert "the second rank is on fire" in (trained / "failing/1.err").read_text()
    last = torch.load(trained / "failing/checkpoints/last.ckpt", weights_only=True)
    assert last["lightning_mem1"]["rl_step"] == 1


@pytest.mark.parametrize(("stopped", "resumed"), [("part", "rest"), ("terminated", "after_terminated")])
def test_a_resumed_run_of_two_ranks_equals_the_uninterrupted_one(trained, stopped, resumed):
    """Dropout draws from each rank's own random numbers. The second run was stopped by SIGTERM to both ranks."""
    whole, rest = found(trained, "whole"), found(trained, resumed)
    assert codes(trained, stopped) == [0, 0], (trained / stopped / "0.err").read_text()[-3000:]
    assert torch.load(trained / stopped / "checkpoints/last.ckpt")["lightning_mem1"]["rl_step"] == 1
    assert all(torch.equal(whole["adapter"][name], rest["adapter"][name]) for name in whole["adapter"])
    states = [
        torch.load(trained / name / "checkpoints/last.ckpt", weights_only=True)["lightning_mem1"]["rng"]
        for name in ("whole", resumed)
    ]
    for a, b in zip(*states, strict=True):
        assert torch.equal(a["torch"], b["torch"])
    assert len(states[0]) == 2 and not torch.equal(states[0][0]["torch"], states[0][1]["torch"])


def test_a_base_that_is_shared_out_gives_the_numbers_of_one_that_is_whole(trained):
    whole, shared = found(trained, "grpo2"), found(trained, "sharded")
    assert 2 * shared["frozen_weights_here"] == whole["frozen_weights_here"]
    for name, gradient in whole["gradients"][0].items():
        torch.testing.assert_close(shared["gradients"][0][name], gradient, rtol=1e-4, atol=1e-7)
    assert shared["metrics"][0]["train/rollout_gap_max"] < 1e-5
    assert shared["metrics"][0]["val/reward"] == whole["metrics"][0]["val/reward"]
    last = torch.load(trained / "sharded/checkpoints/last.ckpt", weights_only=True)
    assert (
        last["lightning_mem1"]["base"] == torch.load(trained / "grpo2/checkpoints/last.ckpt")["lightning_mem1"]["base"]
    )
    assert all("lora" in name for name in last["state_dict"]) and last["optimizer_states"][0]["state"]


def test_ranks_with_fewer_passes_over_a_shared_base_keep_step(trained):
    for rank in (0, 1):
        assert found(trained, "sharded_ppo", rank)["metrics"][-1]["train/skipped_updates"] == 0
