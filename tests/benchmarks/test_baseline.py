import argparse
import ast
import importlib
import json
import random
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.baseline import Ratios, cost_of, finish, worse
from lightning_mem1.policy.policy import Policy
from lightning_mem1.training.layouts.collate import collate
from tiny import random_ids, random_trajectory, tiny_policy

SHARED = ("baseline", "gpu_pairs")  # modules that benchmarks are made of
BENCHMARKS = sorted(path for path in Path("benchmarks").glob("*.py") if path.stem not in SHARED)


def checked(tmp_path, found, committed):
    """The exit status of a run that found a ratio, beside a committed one."""
    file = tmp_path / "committed.json"
    file.write_text(json.dumps(committed))
    options = argparse.Namespace(output=str(tmp_path / "found.json"), check=str(file))
    return finish({"time": found}, lambda each: Ratios(lower={"time to rows": each["time"]}), options, 0.1)


def test_a_ratio_within_the_tolerance_passes_and_is_written_beside_the_hardware(tmp_path, capsys):
    assert checked(tmp_path, 0.54, {"time": 0.5}) == 0
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["time"] == 0.54
    assert {"hardware", "threads", "load_average_5_min"} < set(written)
    assert capsys.readouterr().out.endswith("committed.json: no ratio is worse\n")


def test_a_ratio_beyond_the_tolerance_fails_with_one_line(tmp_path, capsys):
    assert checked(tmp_path, 0.56, {"time": 0.5}) == 1
    assert capsys.readouterr().err.endswith("committed.json: time to rows: expected at most 0.5 + 10%, got 0.56\n")


def test_a_run_may_be_held_against_the_file_that_it_replaces(tmp_path):
    file = tmp_path / "same.json"
    file.write_text(json.dumps({"time": 0.5}))
    options = argparse.Namespace(output=str(file), check=str(file))
    assert finish({"time": 0.6}, lambda each: Ratios(lower={"time": each["time"]}), options, 0.1) == 1
    assert json.loads(file.read_text())["time"] == 0.6


def test_a_file_that_is_no_earlier_run_fails_with_what_to_do(tmp_path, capsys):
    assert checked(tmp_path, 0.5, {"seconds": 3}) == 1
    assert "expected the JSON of an earlier run, got KeyError: 'time'; make it with --output" in capsys.readouterr().err


def test_which_way_is_worse_belongs_to_the_ratio():
    assert worse(Ratios(higher={"speed": 4.5}), Ratios(higher={"speed": 4.0}), 0.1) == ""
    assert worse(Ratios(higher={"speed": 3.5}), Ratios(higher={"speed": 4.0}), 0.1) == (
        "speed: expected at least 4 - 10%, got 3.5"
    )
    assert worse(Ratios(lower={"time": 0.2}), Ratios(lower={"time": 0.5}), 0.1) == ""


def test_a_check_that_would_compare_nothing_fails():
    found = worse(Ratios(higher={"64 episodes": 2.0}), Ratios(higher={"16 episodes": 1.0}), 0.1)
    assert found == "expected ratios such as '16 episodes', got none of the same name; nothing compared"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_the_memory_of_a_piece_of_work_is_its_own_and_not_that_of_the_one_before():
    def held(mib):
        return len(bytearray(mib << 20).replace(b"\0", b"\1"))  # two of them at once, all pages touched

    large, small = cost_of(lambda: held(100)), cost_of(lambda: held(1))
    assert (large.value, small.value) == (100 << 20, 1 << 20)
    assert 100 <= large.peak_mib <= 220 and small.peak_mib <= 20


def test_the_benchmark_of_groups_sees_that_a_shared_prompt_runs_once(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    benchmark = importlib.import_module("benchmarks.group_and_budget")
    policy = Policy.load("bundled")
    (shared, run), (apart, run_apart) = (benchmark.played(policy, 3, each) for each in (True, False))
    own = len(shared[0].prompt_ids) - common(apart)
    assert own > 400
    assert run_apart - run >= 2 * own  # more where episodes also write the same


def common(trajectories):
    """With how many ids all prompts begin."""
    columns = zip(*(each.prompt_ids for each in trajectories), strict=False)
    return next(number for number, ids in enumerate(columns) if len(set(ids)) > 1)


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_every_benchmark_ends_the_same_way_and_states_its_tolerance(path):
    tree = ast.parse(path.read_text())
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert {"arguments", "finish"} <= called
    names = {
        name.id
        for node in tree.body
        for name in ast.walk(node)
        if isinstance(node, ast.Assign) and isinstance(name, ast.Name)
    }
    assert "TOLERANCE" in names


@pytest.mark.parametrize("path", [p for p in BENCHMARKS if p.with_suffix(".json").exists()], ids=lambda path: path.stem)
def test_a_committed_baseline_can_be_read_by_its_benchmark(path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))  # scripts put their own folder there
    module = importlib.import_module(f"benchmarks.{path.stem}")
    found = module.ratios(json.loads(path.with_suffix(".json").read_text()))
    assert {**found.higher, **found.lower}


def test_the_gpu_benchmark_counts_the_products_of_a_pass_and_the_pairs_that_see_each_other(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    gpu = importlib.import_module("benchmarks.gpu")
    policy, rng = tiny_policy(), random.Random(0)
    prompt = random_ids(rng, 7)
    played = [random_trajectory(rng, [(3, 4), (2, 0)], prompt, number) for number in range(2)]
    batch = collate(played, "tree")
    places = torch.arange(batch.num_tokens)
    pairs = int(batch.tree.visible(places[:, None], places[None, :]).sum())
    linear = sum(m.weight.numel() for m in policy.causal_lm.model.modules() if isinstance(m, torch.nn.Linear))
    head = policy.config.vocab_size * policy.config.hidden_size
    forward = 2 * linear * batch.num_tokens + 2 * head * len(batch.action_ids)
    attention = 2 * 2 * pairs * policy.config.hidden_size * policy.config.num_hidden_layers
    assert gpu.flops(policy, played) == 2 * forward + 3 * attention
