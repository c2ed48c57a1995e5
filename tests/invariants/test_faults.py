"""What goes wrong around a run: it goes on, each fault is counted and written down, nothing hangs."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_mem1.callbacks import FailuresCallback, MetricsCallback
from lightning_mem1.cli import fit as command
from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import StopReason
from tiny import task, tiny_tokenizer
from tiny_tasks import FAULTS, HARMLESS, RELEASED, FaultyEnv, FaultyTasks, RankedTasks, for_every_table

ROOT = Path(__file__).parents[2]
GOOD = "<summary>red</summary><answer>click[red]</answer>"


@pytest.fixture
def released():
    RELEASED.clear()
    yield
    RELEASED.set()


def play(env, **settings):
    engine = ScriptedEngine(tiny_tokenizer(), [lambda context: GOOD, lambda context: GOOD])
    engine.max_context_tokens = 1000
    episodes = [Episode(task(), env), Episode(task(), FaultyEnv(1.0, lambda: None))]
    chosen = RolloutSettings(prompt="brief", max_new_tokens=40, env_timeout_s=0.2, **settings)
    return collect(episodes, engine, tiny_tokenizer(), chosen)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_ends_its_own_episode_at_most_and_what_is_kept_can_be_written(released, kind):
    faults = iter([None, FAULTS[kind], None, None, None])
    faulty, other = play(FaultyEnv(1.0, lambda: next(faults)))
    assert (other.stop_reason, other.reward, len(other.turns)) == (StopReason.DONE, 1.0, 4)
    assert (faulty.stop_reason == StopReason.ERROR) == bool(faulty.error) == (kind not in HARMLESS)
    turn = faulty.turns[1]
    assert len(json.dumps([turn.information, turn.reward, turn.info]).encode()) < 200_000
    turn.information.encode()
    assert isinstance(faulty.success, float) and turn.reward == 0.0


@pytest.mark.parametrize(
    ("page", "reason"),
    [(None, StopReason.ERROR), (b"page", StopReason.ERROR), ("x" * 10_000_000, StopReason.CONTEXT)],
)
def test_a_first_page_that_is_none_ends_its_own_episode(page, reason):
    class Unseen(FaultyEnv):
        def observe(self):
            return page

    faulty, other = play(Unseen(1.0, lambda: None))
    assert (faulty.stop_reason, faulty.turns, faulty.prompt_ids) == (reason, [], [])
    assert other.stop_reason == StopReason.DONE


def test_a_run_whose_environments_fail_in_every_tenth_step_goes_on(config, released, tmp_path, mlflow_uri, capsys):
    options = ["--data.num_rl_steps=4", "--model.rollout.env_timeout_s=0.2", "--tracking_uri", mlflow_uri]
    options += ["--data.init_args.source.class_path=tiny_tasks.FaultyTasks", "--experiment=faulty"]
    assert command.main([config, *options]) == 0
    out, err = capsys.readouterr()
    assert "step    4/4" in out
    from mlflow.tracking import MlflowClient

    client = MlflowClient(mlflow_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("faulty").experiment_id])
    shares = {p.step: p.value for p in client.get_metric_history(run.info.run_id, "rollout/stop_error")}
    written = [json.loads(line) for line in (tmp_path / "runs/faulty/0/failures.jsonl").read_text().splitlines()]
    for rl_step in (1, 2, 3, 4):
        here = [each for each in written if (each["split"], each["rl_step"]) == ("train", rl_step)]
        assert shares[rl_step] == pytest.approx(len(here) / 6)
        told = f"train {rl_step}: {len(here)} of 6 episodes failed, the first one (ranked/train/"
        assert (told in err) == bool(here)
    kinds = {each["error"].split(":")[0] for each in written}
    assert kinds == {"RuntimeError", "TimeoutError", "TypeError", "ValueError"}


def test_every_failed_episode_is_written_down_and_none_makes_no_file(
    make_module, make_data, fit, tmp_path, capsys, released
):
    fit(make_module(), make_data(RankedTasks(), num_rl_steps=1), MetricsCallback(), FailuresCallback())
    assert not (tmp_path / "failures.jsonl").exists() and capsys.readouterr().err == ""
    limited = replace(make_module().rollout_settings, env_timeout_s=0.2)
    module, data = make_module(rollout=limited), make_data(FaultyTasks(), num_rl_steps=1, num_val_tasks=0)
    fit(module, data, FailuresCallback())
    first, second = map(json.loads, (tmp_path / "failures.jsonl").read_text().splitlines())
    assert {first["error"], second["error"]} == {  # the 10th step raises, the 20th hangs, and there is no 30th
        "RuntimeError: the shop is on fire",
        "TimeoutError: expected step() to return within 0.2 s, got nothing; fix the environment or raise "
        "model.rollout.env_timeout_s",
    }
    assert (first["split"], first["rl_step"]) == ("train", 1) and first["seed"] != second["seed"]
    assert "train 1: 2 of 6 episodes failed, the first one (ranked/train/" in capsys.readouterr().err


def test_a_full_disk_for_mlflow_is_told_once_and_the_numbers_come_later(config, tmp_path, mlflow_uri, capsys):
    from mlflow.tracking import MlflowClient

    store = tmp_path / "full.db"
    MlflowClient(mlflow_uri).search_experiments()  # makes it, where this is the first test
    shutil.copy(mlflow_uri.removeprefix("sqlite:///"), store)
    client, full = MlflowClient(f"sqlite:///{store}"), {"class_path": "tiny_tasks.FullStore"}
    callbacks = json.dumps([{**full, "init_args": {"path": str(store)}}])
    options = ["--tracking_uri", f"sqlite:///{store}", "--experiment=full"]
    capsys.readouterr()
    assert command.main([config, *options, "--data.num_rl_steps=3", "--trainer.callbacks", callbacks]) == 0
    out, err = capsys.readouterr()
    assert "step    3/3" in out and len(err.splitlines()) == 1
    assert err.startswith("MLflow did not take numbers (")
    assert "database or disk is full" in err and "the training continues, numbers wait in the checkpoints" in err
    for_every_table(str(store), "DROP TRIGGER full_{0}_{1}")
    assert command.main([config, *options, "--data.num_rl_steps=4", "--ckpt_path=last"]) == 0
    (run,) = client.search_runs([client.get_experiment_by_name("full").experiment_id])
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 2, 3, 4]


def torchrun(config, folder, *options):
    """The exit code and the words of two ranks that torchrun has started; 0 only when both end with 0."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "GLOO_SOCKET_IFNAME": "lo"}
    launcher = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node=2"]
    launcher += ["--master-addr=127.0.0.1", f"--master-port={port}", "-m", "lightning_mem1.fit", config]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.logger=false"]
    done = subprocess.run([*launcher, *two, *options], cwd=folder, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGTERM") or os.name == "nt", reason="needs SIGTERM")
def test_sigterm_to_one_of_two_ranks_ends_both_with_a_checkpoint_and_exit_code_0(config, tmp_path):
    source = "--data.init_args.source.class_path=tiny_tasks.TerminatedRank"
    code, out, err = torchrun(config, tmp_path, source, "--data.num_rl_steps=4")
    last = "runs/tiny/0/checkpoints/last.ckpt"
    assert (code, err.count(f"interrupted after 2 rl_steps; resume with --ckpt_path {last}")) == (0, 1), err[-3000:]
    kept = torch.load(tmp_path / last, weights_only=True)["lightning_mem1"]
    assert kept["rl_step"] == 2 and len(kept["rng"]) == 2
    code, out, err = torchrun(config, tmp_path, "--data.num_rl_steps=3", "--ckpt_path=last")
    assert code == 0 and out.count("step    3/3") == 1 and "step    2/" not in out, err[-3000:]
