"""Full training of weights that are shared out among ranks: the numbers of one process, and any number resumes."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_mem1.policy.policy import Policy
from lightning_mem1.training import checkpoint_shards
from lightning_mem1.training.checkpoint_shape import check_resumable, check_shape
from lightning_mem1.training.checkpoint_state import read
from lightning_mem1.training.loading import load_policy
from lightning_mem1.training.module import Mem1Module

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_folder):
    """The folder of `ranks.py full`, which has trained everything."""
    folder = tmp_path_factory.mktemp("ranks")
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-W", "ignore", str(ROOT / "tests/ranks.py"), str(tiny_folder), str(folder), "full"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def found(trained, name, rank=0):
    codes = torch.load(trained / "codes.pt", weights_only=True)[name]
    assert codes[rank] == 0, (trained / name / f"{rank}.err").read_text()[-3000:]
    return torch.load(trained / name / f"{rank}.pt", weights_only=True)


def last(trained, name):
    return trained / name / "checkpoints/last.ckpt"


def close(first, second):
    """Weights of two runs with steps of 1e-3: Adam makes whole steps of gradients that are next to nothing."""
    assert first.keys() == second.keys()
    gaps = torch.cat([(second[name] - weight).abs().flatten() for name, weight in first.items()])
    assert gaps.max() < 1e-4 and gaps.mean() < 1e-7


def test_two_ranks_have_the_log_probs_gradients_and_updates_of_one(trained):
    one, two, second = found(trained, "one"), found(trained, "two"), found(trained, "two", 1)
    assert two["metrics"][0]["train/rollout_gap_max"] < 1e-5
    assert len(one["gradients"]) == len(two["gradients"]) == 2
    for before, after in zip(one["gradients"], two["gradients"], strict=True):
        assert before.keys() == after.keys()
        for name, gradient in before.items():
            torch.testing.assert_close(after[name], gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max().item())
    for key in ("train/loss", "train/grad_norm", "train/entropy", "rollout/reward"):
        assert two["metrics"][0][key] == pytest.approx(one["metrics"][0][key], rel=1e-4, abs=1e-6), key
    close(one["adapter"], two["adapter"])
    assert all(torch.equal(two["adapter"][name], second["adapter"][name]) for name in two["adapter"])


@pytest.mark.parametrize("kind", ["tied", "untied", "qwen3_5", "jamba", "lfm2"])
def test_layers_of_every_kind_are_scored_as_if_they_were_whole(trained, kind):
    for rank in (0, 1):
        gaps = found(trained, "layers", rank)[kind]
        assert gaps["logprobs"] < 1e-5 and gaps["gradients"] < 1e-4, gaps


def test_a_rank_keeps_its_part_of_the_moments_alone(trained):
    weights = sum(weight.numel() for weight in found(trained, "one")["adapter"].values())
    steps = len(found(trained, "one")["adapter"])
    assert found(trained, "one")["moments_here"] == 2 * weights + steps
    parts = [found(trained, "two", rank)["moments_here"] - steps for rank in (0, 1)]
    assert sum(parts) == 2 * weights and max(parts) < 1.1 * weights


def test_activations_that_are_computed_again_give_the_same_weights(trained):
    close(found(trained, "two")["adapter"], found(trained, "recomputed")["adapter"])


def test_turns_of_servers_need_no_rank_that_holds_the_base(trained):
    alone, served = found(trained, "served_alone"), found(trained, "served")
    assert all(metrics["train/rollout_gap_max"] < 1e-5 for metrics in served["metrics"])
    close(alone["adapter"], served["adapter"])


def test_a_rank_with_nothing_to_learn_from_keeps_step(trained):
    for rank in (0, 1):
        assert found(trained, "uneven", rank)["metrics"][-1]["train/skipped_updates"] == 0


@pytest.mark.parametrize("name", ["rest", "rest_on_three", "rest_alone"])
def test_any_number_of_ranks_resumes(trained, name):
    assert len(found(trained, name)["gradients"]) == 1
    close(found(trained, "two")["adapter"], found(trained, name)["adapter"])


def test_the_same_number_of_ranks_resumes_bit_for_bit(trained):
    whole, rest = found(trained, "two")["adapter"], found(trained, "rest")["adapter"]
    assert all(torch.equal(whole[name], rest[name]) for name in whole)


def test_a_checkpoint_of_one_process_is_shared_out(trained):
    close(found(trained, "one")["adapter"], found(trained, "spread_out")["adapter"])


def test_each_rank_writes_its_part_and_old_parts_are_deleted(trained):
    folders = sorted((last(trained, "two").parent / "shards").iterdir())
    assert [path.name.partition("-")[0] for path in folders] == ["000001", "000002"]  # last, and the one kept before
    assert all(
        {".metadata", "__0_0.distcp", "__1_0.distcp"} <= {each.name for each in path.iterdir()} for path in folders
    )
    content = torch.load(last(trained, "two"), weights_only=True)
    assert not content["state_dict"] and content["shards"] == folders[1].name
    check_resumable(content, str(last(trained, "two")))


def test_one_process_reads_what_two_wrote(trained):
    weights = {name.removeprefix("policy."): w for name, w in found(trained, "two")["adapter"].items()}
    at_the_end = Policy.load(str(trained / "two/adapter"), lora=None)
    of_checkpoint = load_policy(last(trained, "two"))
    module = Mem1Module.load_from_checkpoint(last(trained, "two"))
    for policy in (at_the_end, of_checkpoint, module.policy):
        held = dict(policy.named_parameters())
        assert all(torch.equal(held[name], weight) for name, weight in weights.items())
    assert module.rl_step == 2


def test_shards_that_were_left_behind_are_named(trained, tmp_path):
    shutil.copy(last(trained, "two"), tmp_path)
    with pytest.raises(ValueError, match="expected its weights in .*shards.*copy the folder 'shards' along"):
        read(tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="copy the folder 'shards' along"):
        check_shape(torch.load(tmp_path / "last.ckpt", weights_only=True), str(tmp_path / "last.ckpt"))


def test_shards_that_are_cut_short_are_named(trained, tmp_path):
    shutil.copytree(last(trained, "two").parent, tmp_path / "checkpoints")
    for part in (tmp_path / "checkpoints/shards").glob("*/__1_0.distcp"):
        part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(ValueError, match="corrupt checkpoint: expected complete shards in"):
        read(tmp_path / "checkpoints/last.ckpt")


def test_a_manifest_runs_nothing(trained, tmp_path):
    shutil.copytree(last(trained, "two").parent, tmp_path / "checkpoints")
    spoiled = tmp_path / "spoiled"

    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(spoiled),)

    for manifest in (tmp_path / "checkpoints/shards").glob("*/.metadata"):
        manifest.write_bytes(pickle.dumps(Harm()))
    with pytest.raises(ValueError, match="corrupt checkpoint: expected torch's manifest .*mkdir"):
        read(tmp_path / "checkpoints/last.ckpt")
    assert not spoiled.exists()


def test_a_name_that_leads_elsewhere_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected the name of a folder of shards, got '../../else'"):
        checkpoint_shards.join({"shards": "../../else"}, tmp_path / "last.ckpt")
