"""The experiments as a user runs them, cut short: every YAML is read, the bundled policy shops, the main job trains."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from lightning_mem1.cli import compare, fit
from lightning_mem1.context.contexts import contexts, drift
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.environments.webshop.tasks import ShopTasks
from lightning_mem1.policy.loading import BUNDLED, BUNDLED_POLICIES
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.warmstart.settings import WarmStart
from lightning_mem1.warmstart.train import validate

ROOT = Path(__file__).parents[2]
CARD = BUNDLED / "README.md"
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.yaml"))
PAIR = ("ablations/layouts.yaml", "webshop.yaml")
SHARED = ROOT.parent / "shared" / "data" / "webshop-1k"
SHORT = ["--data.tasks_per_step=2", "--data.group_size=4", "--data.num_rl_steps=2", "--data.num_val_tasks=3"]


def warm_start(name="warmstart_longer"):
    """A warm start; each one that makes a bundled policy goes on from the one before."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(parser_mode="omegaconf", exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(WarmStart, "warmstart")
    path = ROOT / "experiments" / f"{name}.yaml"
    return parser.instantiate(parser.parse_args(["--config", str(path)])).warmstart


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_is_read_without_complaint(path, capsys):
    content, name = yaml.safe_load(path.read_text()), str(path.relative_to(ROOT / "experiments").with_suffix(""))
    if "warmstart" in content:
        assert warm_start(name).stages
    elif "compare" in content:
        assert compare.main([str(path), "--print_config"]) == 0
        assert content["compare"]["fit"]["config"] in capsys.readouterr().out
    else:
        assert fit.main([str(path), "--print_config"]) == 0
        assert "tasks_per_step" in capsys.readouterr().out


def test_the_ablation_of_layouts_differs_from_the_shopper_in_nothing_else():
    ablation, shopper = (yaml.safe_load((ROOT / "experiments" / name).read_text()) for name in PAIR)
    assert (ablation["model"].pop("layout"), shopper["model"].pop("layout")) == ("stitched", "tree")
    assert ablation == shopper


@pytest.mark.parametrize(
    ("newer", "papers", "policy", "slots"),
    [
        ("qa_qwen3-8b", "qa_qwen2.5-7b", "Qwen/Qwen3-8B-Base", 32),
        ("qa_qwen3.5-9b_80gb", "qa_qwen2.5-7b_80gb", "Qwen/Qwen3.5-9B-Base", 64),
    ],
)
def test_the_configs_of_newer_bases_differ_from_the_papers_in_the_base_and_in_what_fits(newer, papers, policy, slots):
    one, other = (yaml.safe_load((ROOT / "experiments" / "paper" / f"{n}.yaml").read_text()) for n in (newer, papers))
    assert (one["model"].pop("policy"), other["model"].pop("policy")) == (policy, "Qwen/Qwen2.5-7B")
    assert (one["model"]["engine"].pop("num_slots"), other["model"]["engine"].pop("num_slots")) == (slots, 64)
    assert one == other


def test_the_memory_modes_of_the_claim_differ_from_each_other_in_the_mode_alone():
    rl, raft = (
        yaml.safe_load((ROOT / "experiments" / "claim" / f"{name}.yaml").read_text()) for name in ("qa", "raft")
    )
    assert raft["model"].pop("credit") == {"keep": 2, "threshold": 2.0}
    assert (rl["model"].pop("algorithm"), raft["model"].pop("algorithm")) == ("grpo", "raft")
    assert rl == raft
    names = "warmstart_base", "warmstart", "warmstart_chained", "warmstart_hasty", "cloning"
    base, start, chained, hasty, cloning = (warm_start(f"claim/{name}") for name in names)
    assert base.data.qa == cloning.data.qa == replace(start.data.qa, carried=0.0)
    assert chained.data.qa == start.data.qa
    assert hasty.data.qa == replace(start.data.qa, skill=replace(start.data.qa.skill, early=0.6))
    assert {k for stage in base.stages for k in stage.objectives} == {1}  # where `mem1` and `full` see the same
    stages = [*start.stages, *chained.stages, *hasty.stages]
    assert max(k for stage in stages for k in stage.objectives) == 6  # tested on up to 32
    episodes = sum(stage.steps * stage.qa_episodes for stage in cloning.stages)
    data = rl["data"]["init_args"]
    assert episodes == data["num_rl_steps"] * data["tasks_per_step"] * data["group_size"]


@pytest.mark.parametrize(
    ("policy", "made_by"),
    [
        ("bundled", "warmstart_longer"),
        ("bundled_marketplace", "warmstart_marketplace"),
        ("bundled_reading", "warmstart_reading"),
    ],
)
def test_a_bundled_policy_plays_as_its_card_says(policy, made_by):
    config, card = warm_start(made_by), (BUNDLED_POLICIES[policy] / "README.md").read_text()
    rows = {
        name: rf"{what}, greedy \| {reward} (\S+), {success} (\S+), "
        for name, what, reward, success in (
            ("shop", "shop: 100 validation goals", "reward", "success"),
            ("marketplace", "marketplace: 100 validation goals", "reward", "success"),
            ("qa", "QA: 100 validation tasks", "right answers", "all right"),
            ("reading", "reading: 100 validation documents", "reward", "success"),
        )
        if getattr(config.stages[-1], f"{name}_episodes")
    }
    told = {name: re.search(row + r"(\S+) turns, (\S+)% valid", card).groups() for name, row in rows.items()}
    found = validate(Policy.load(policy), config)
    for name, numbers in told.items():
        reward, success, turns, valid = map(float, numbers)
        # another processor may round a log-prob the other way and change an episode, but not many
        assert found[f"{name}_reward"] == pytest.approx(reward, abs=0.04)
        assert found[f"{name}_success"] == pytest.approx(success, abs=0.04)
        assert found[f"{name}_turns"] == pytest.approx(turns, abs=0.4)
        assert found[f"{name}_valid"] == pytest.approx(valid / 100, abs=0.04)


def test_its_rollouts_drift_nowhere_and_its_context_is_bounded_by_prompt_and_one_turn():
    policy, source = Policy.load("bundled"), ShopTasks(results_per_page=5)
    tasks = [source.task("train", i) for i in range(12)]
    episodes = [Episode(task, source.env(task), i, seed=i) for i, task in enumerate(tasks)]
    engine = LocalEngine(policy, EngineSettings(num_slots=12, max_context_tokens=1024))
    for trajectory in collect(episodes, engine, policy.tokenizer, RolloutSettings(prompt="brief", max_new_tokens=96)):
        assert drift(trajectory) == 0
        for number, context in enumerate(contexts(trajectory)[1:]):
            turn = trajectory.turns[number]
            assert len(context) == len(trajectory.prompt_ids) + len(turn.action_ids) + len(turn.information_ids)


def test_the_bundled_assets_are_small_safe_and_tell_how_they_were_made():
    files = [path for path in (ROOT / "lightning_mem1" / "policy" / "assets").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja", ".md", ".py"}
    card = CARD.read_text()
    assert warm_start().init_from == warm_start().output == warm_start("warmstart").output
    assert warm_start().output == "lightning_mem1/policy/assets/policy"
    assert "| command | `mem1 warmstart experiments/warmstart_longer.yaml` |" in card
    assert "| seed | 1 |" in card
    assert "| before that: command | `mem1 warmstart experiments/warmstart.yaml` |" in card
    assert "| before that: seed | 0 |" in card
    later = (BUNDLED_POLICIES["bundled_marketplace"] / "README.md").read_text()
    assert warm_start("warmstart_marketplace").init_from == warm_start().output
    assert "| command | `mem1 warmstart experiments/warmstart_marketplace.yaml` |" in later
    assert "| before that: command | `mem1 warmstart experiments/warmstart_longer.yaml` |" in later
    reader = (BUNDLED_POLICIES["bundled_reading"] / "README.md").read_text()
    assert warm_start("warmstart_reading").init_from == warm_start().output
    assert "| command | `mem1 warmstart experiments/warmstart_reading.yaml` |" in reader
    assert "| before that: command | `mem1 warmstart experiments/warmstart_longer.yaml` |" in reader


@pytest.mark.parametrize("catalogue", [None, SHARED], ids=["generated", "official"])
def test_the_main_job_trains_on_either_catalogue(catalogue, tmp_path, monkeypatch, capsys):
    if catalogue is not None and not catalogue.exists():
        pytest.skip("the official 1,000 products are not beside the checkout")
    monkeypatch.chdir(tmp_path)
    more = [f"--data.catalogue={catalogue}"] if catalogue else []
    assert fit.main([str(ROOT / "experiments" / "webshop.yaml"), "--trainer.logger=false", *SHORT, *more]) == 0
    out = capsys.readouterr().out
    assert ("bundled_marketplace, which reads pages like the official ones" in out) == bool(catalogue)
    assert re.search(r"step +2/2 +reward \d\.\d{3} +success \d\.\d\d +peak \d+ tokens +state \d+", out)
    assert re.search(r"val reward \d\.\d\d -> \d\.\d\d  \(rule \d\.\d\d, oracle 1\.00, reachable 1\.00\)", out)
    (adapter,) = tmp_path.glob("runs/webshop/*/adapter/**/adapter_model.safetensors")
    assert adapter.stat().st_size > 1000


def test_training_from_the_bundled_policy_sees_what_its_rollout_saw():
    policy = Policy.load("bundled", lora=LoraSettings(r=4)).eval()
    source = ShopTasks(results_per_page=5)
    tasks = [source.task("train", i) for i in range(4)]
    engine = LocalEngine(policy, EngineSettings(num_slots=4, max_context_tokens=1024))
    episodes = [Episode(task, source.env(task), i, seed=i) for i, task in enumerate(tasks)]
    trajectories = collect(episodes, engine, policy.tokenizer, RolloutSettings(prompt="brief", max_new_tokens=96))
    from lightning_mem1.training.layouts.collate import collate

    batch = collate(trajectories)
    with torch.no_grad():
        gap = (policy.logprobs(batch)[0] - batch.rollout_logprobs).abs().max()
    assert gap <= 1e-4  # float32 over contexts of several hundred tokens; typically 1e-5
