"""Groups of settings: from a dataclass or a dict, each wrong value in one line, and what became of earlier names."""

from dataclasses import fields
from typing import get_args, get_type_hints

import pytest

from lightning_mem1.checks import DTYPES, MOVED
from lightning_mem1.context.modes import MODES
from lightning_mem1.engine.settings import EngineSettings, ServerSettings
from lightning_mem1.policy.attention import TREE_KERNELS
from lightning_mem1.policy.kernels import KERNELS
from lightning_mem1.policy.quantization import QUANTIZATIONS
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.training.plain_settings import from_plain, plain
from lightning_mem1.training.settings import GROUPS, ComputeSettings, LossSettings, OptimSettings


def test_a_group_comes_back_from_its_plain_values_with_the_groups_inside_it():
    engine = EngineSettings(num_slots=3, server=ServerSettings(urls=["http://127.0.0.1:8000"], num_retries=0))
    assert from_plain(EngineSettings, plain(engine), "model.engine") == engine
    rollout = RolloutSettings(format="qa", max_new_tokens=9)
    again = plain(rollout)
    again["tags"]["actions"] = list(again["tags"]["actions"])  # as JSON and YAML have it
    assert from_plain(RolloutSettings, again, "model.rollout") == rollout


def test_what_a_dict_leaves_out_keeps_its_default_and_a_dataclass_is_taken_as_it_is():
    assert from_plain(OptimSettings, {"num_epochs": 2}, "model.optim") == OptimSettings(num_epochs=2)
    given = LossSettings(clip=0.1)
    assert from_plain(LossSettings, given, "model.loss") is given


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (
            OptimSettings,
            {"warmup_step": 3},
            "unknown key 'model.x.warmup_step': expected one of name, .*; did you mean 'model.x.warmup_steps'?",
        ),
        (EngineSettings, {"server": {"url": []}}, "unknown key 'model.x.server.url': expected one of urls, "),
        (LossSettings, {"kl_in": "both"}, "unknown kl_in: expected one of loss, reward, got 'both'; set model.x.kl_in"),
        (LossSettings, LossSettings(kl_estimator="k4"), "unknown kl_estimator: expected one of k1, k2, k3, got 'k4'"),
        (LossSettings, None, "wrong value for 'model.x': expected LossSettings or a dict, got None; set model.x"),
        (OptimSettings, 3, "wrong value for 'model.x': expected OptimSettings or a dict, got 3; set model.x"),
    ],
)
def test_a_group_that_cannot_be_is_one_line(kind, given, message):
    with pytest.raises(ValueError, match=message):
        from_plain(kind, given, "model.x")


def test_the_choices_of_the_computation_are_those_of_what_reads_them():
    hints = get_type_hints(ComputeSettings)
    read = {"dtype": DTYPES, "quantization": QUANTIZATIONS, "attention": ("auto", *TREE_KERNELS), "kernels": KERNELS}
    assert {name: get_args(hints[name]) for name in read} == {name: tuple(choices) for name, choices in read.items()}


def test_every_moved_key_names_one_that_there_is_and_is_none_itself():
    known = {f"model.{group}.{field.name}" for group, kind in GROUPS.items() for field in fields(kind)}
    known |= {f"model.memory.{field.name}" for mode in MODES.values() for field in fields(mode)}
    assert known >= set(MOVED.values()) and not known & MOVED.keys()
    assert MOVED["model.beta"] == "model.loss.kl_coef" and MOVED["model.optimizer"] == "model.optim.name"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"beta": 0.1}, r"model\.beta is now model\.loss\.kl_coef: call Mem1Module with loss={'kl_coef': \.\.\.}"),
        ({"resample_rounds": 2}, r"model\.resample_rounds is now model\.rollout\.resample_rounds"),
        ({"algoritm": "ppo"}, "Mem1Module has no argument 'algoritm': did you mean 'algorithm'?"),
        ({"tempo": 3}, "Mem1Module has no argument 'tempo': expected some of policy, memory, "),
    ],
)
def test_an_argument_that_there_is_not_is_one_line_with_its_present_name(given, message):
    with pytest.raises(TypeError, match=message):
        Mem1Module(**given)


def test_a_module_of_ones_own_may_take_further_arguments(tiny_folder):
    class Own(Mem1Module):
        def __init__(self, tempo: int = 1, **kwargs):
            super().__init__(**kwargs)
            self.save_hyperparameters({"tempo": tempo}, logger=False)

    module = Own(tempo=3, policy=str(tiny_folder), optim={"num_epochs": 2})
    assert module.hparams["tempo"] == 3 and module.hparams["optim"]["num_epochs"] == 2
    with pytest.raises(TypeError, match=r"model\.beta is now model\.loss\.kl_coef: call Own with loss="):
        Own(beta=0.1)


def test_a_bootstrap_without_a_critic_is_refused(make_module):
    with pytest.raises(
        ValueError, match="nothing to bootstrap from: expected an algorithm with a critic, got grpo; set"
    ):
        make_module(credit={"bootstrap": True})
    assert make_module(algorithm="ppo", credit={"bootstrap": True}).credit_assigner.settings.bootstrap


def test_dr_grpo_and_dapo_are_over_tokens_whatever_is_set(make_module):
    for algorithm, unit in (("dr_grpo", "token"), ("dapo", "token"), ("gspo", "trajectory"), ("grpo", "turn")):
        assert make_module(algorithm=algorithm, loss_unit="turn").policy_loss.unit == unit


def test_the_default_clip_range_written_out_keeps_the_wider_one_of_dapo(make_module):
    loss = make_module(algorithm="dapo", loss={"clip": 0.2}).policy_loss
    assert (loss.clip, loss.clip_high) == (0.2, 0.28)
