"""What a checkpoint says, and what is made again from it: modules, policies and runs, those of format 1 too."""

import random

import pytest
import torch

from first_format import into_format_1
from lightning_mem1.callbacks import MetricsCallback, RLCheckpoint
from lightning_mem1.context.settings import memory_mode
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.critic import CriticSettings
from lightning_mem1.training.loading import load_policy
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.training.plain_settings import plain
from lightning_mem1.training.settings import LossSettings, OptimSettings

SETTINGS = {  # of the runs here, as they are now
    "lr": 0.02,
    "optim": OptimSettings(num_minibatches=2, warmup_steps=3),
    "loss": LossSettings(clip=0.1, kl_coef=0.05),
    "critic": CriticSettings(r=2, lr=5e-3),
}


class Curve(MetricsCallback):
    """Keeps the metrics of every rl_step."""

    def __init__(self):
        super().__init__()
        self.history = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        kept = ("train/", "rollout/reward")
        self.history.append({k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(kept)})


def same_weights(one, other):
    ours, theirs = one.trained(), other.trained()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def trained(make_module, make_data, fit, folder, **settings):
    """A module after one rl_step, and its checkpoint."""
    module, checkpoint = make_module(**{**SETTINGS, **settings}), RLCheckpoint(str(folder))
    fit(module, make_data(num_rl_steps=1, num_val_tasks=0), checkpoint, enable_checkpointing=True)
    return module, checkpoint.last_path


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_a_module_is_made_again_from_its_checkpoint_alone(make_module, make_data, fit, tmp_path, algorithm):
    module, path = trained(make_module, make_data, fit, tmp_path, algorithm=algorithm)
    content = torch.load(path, weights_only=True)
    assert content["hyper_parameters"]["loss"] == plain(LossSettings(clip=0.1, kl_coef=0.05))
    assert content["hyper_parameters"] == module.hparams and "settings" not in content["lightning_mem1"]
    torch.manual_seed(5)
    random.seed(5)
    before = (torch.get_rng_state(), random.getstate())
    again = Mem1Module.load_from_checkpoint(path)
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()
    assert same_weights(again, module) and again.rl_step == 1
    assert (again.critic is not None) == (algorithm == "ppo")
    assert again.hparams == module.hparams and again.policy_loss == module.policy_loss


def test_an_argument_given_to_load_wins_over_the_checkpoints(make_module, make_data, fit, tmp_path):
    module, path = trained(make_module, make_data, fit, tmp_path)
    again = Mem1Module.load_from_checkpoint(path, lr=0.5, loss={"entropy_coef": 0.1}, optim=OptimSettings(num_epochs=3))
    assert (again.lr, again.optim) == (0.5, OptimSettings(num_epochs=3)) and same_weights(again, module)
    assert (again.policy_loss.entropy_coef, again.policy_loss.clip) == (0.1, 0.2)  # a group replaces the whole group
    with open(path, "rb") as file:
        assert same_weights(Mem1Module.load_from_checkpoint(file, map_location="cpu"), module)
    with pytest.raises(TypeError, match=r"model\.num_epochs is now model\.optim\.num_epochs"):
        Mem1Module.load_from_checkpoint(path, num_epochs=3)
    with pytest.raises(ValueError, match=r"another scale: expected model\.lora\.alpha 8, got 16"):
        Mem1Module.load_from_checkpoint(path, lora={"r": 4, "alpha": 16})


@pytest.mark.parametrize("memory", ["a_mode_of_theirs.rule", {"mode": "a_mode_of_theirs.rule", "size": 3}])
def test_a_memory_mode_that_a_checkpoint_names_is_imported_only_when_asked_for(
    make_module, make_data, fit, tmp_path, monkeypatch, memory
):
    _, path = trained(make_module, make_data, fit, tmp_path)
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["memory"] = memory
    torch.save(content, path)
    (tmp_path / "a_mode_of_theirs.py").write_text(f"open('{tmp_path}/ran', 'w')\nrule = list\n")
    monkeypatch.syspath_prepend(tmp_path)
    expected = "the checkpoint names code: expected memory 'a_mode_of_theirs.rule' to be imported already"
    with pytest.raises(ValueError, match=expected):
        Mem1Module.load_from_checkpoint(path)
    assert Mem1Module.load_from_checkpoint(path, memory="full").memory == memory_mode("full")
    assert not (tmp_path / "ran").exists()


def test_code_that_a_checkpoint_names_is_imported_only_when_asked_for(
    make_module, make_data, fit, tmp_path, monkeypatch
):
    _, path = trained(make_module, make_data, fit, tmp_path)
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["algorithm"] = "strangers.code"
    torch.save(content, path)
    function = "def code(played, settings):\n    pass\n"
    (tmp_path / "strangers.py").write_text(f"open('{tmp_path}/ran', 'w')\n{function}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ValueError, match="the checkpoint names code: expected algorithm 'strangers.code' to be imported"
    ):
        Mem1Module.load_from_checkpoint(path)
    assert not (tmp_path / "ran").exists()
    assert Mem1Module.load_from_checkpoint(path, algorithm="grpo").algorithm == "grpo"
    assert not (tmp_path / "ran").exists()
    assert Mem1Module.load_from_checkpoint(path, algorithm="strangers.code").algorithm == "strangers.code"


def test_a_checkpoint_of_a_later_version_or_of_another_program_is_refused(make_module, make_data, fit, tmp_path):
    _, path = trained(make_module, make_data, fit, tmp_path)
    content = torch.load(path, weights_only=True)
    content["lightning_mem1"]["format"] = 3
    torch.save(content, path)
    with pytest.raises(ValueError, match="checkpoint of a later version: expected format 2 at most, got 3; install"):
        Mem1Module.load_from_checkpoint(path)
    del content["lightning_mem1"]
    torch.save(content, path)
    with pytest.raises(ValueError, match="not a checkpoint of lightning_mem1: expected an entry 'lightning_mem1'"):
        Mem1Module.load_from_checkpoint(path)


@pytest.mark.parametrize(
    ("algorithm", "own_base", "one_step_off"),
    [("grpo", False, False), ("raft", False, False), ("ppo", False, True), ("ppo", True, False)],
)
def test_a_run_resumed_from_a_checkpoint_of_format_1_equals_the_uninterrupted_one(
    make_module, make_data, fit, tmp_path, tiny_folder, algorithm, own_base, one_step_off
):
    policy = str(tiny_folder)
    critic = CriticSettings(policy=policy if own_base else None, r=2, lr=5e-3)
    engine = EngineSettings(num_slots=8, max_context_tokens=160, one_step_off=one_step_off)
    settings = {"algorithm": algorithm, "critic": critic, "engine": engine}
    whole, module = Curve(), make_module(**{**SETTINGS, **settings})
    fit(module, make_data(num_val_tasks=0), whole)
    checkpoint = RLCheckpoint(str(tmp_path))
    first = make_module(**{**SETTINGS, **settings})
    fit(first, make_data(num_rl_steps=2, num_val_tasks=0), checkpoint, enable_checkpointing=True)
    path = checkpoint.last_path
    torch.save(into_format_1(torch.load(path, weights_only=True), policy, algorithm, own_base), path)

    rest, resumed = Curve(), make_module(**{**SETTINGS, **settings})
    fit(resumed, make_data(num_val_tasks=0), rest, ckpt_path=str(path))
    assert rest.history == whole.history[2:] and same_weights(resumed, module)

    loaded = Mem1Module.load_from_checkpoint(path)
    assert same_weights(loaded, first) and loaded.rl_step == 2
    assert loaded.hparams == {**first.hparams, "engine": plain(EngineSettings(num_slots=8, max_context_tokens=160))}
    played, ours = load_policy(str(path)).adapter_state(), first.policy.adapter_state()
    assert played.keys() == ours.keys() and all(torch.equal(played[name], ours[name]) for name in ours)
