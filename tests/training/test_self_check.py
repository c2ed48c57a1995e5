"""The self-check ends a run that would train another model than the one that plays: one fix at a time is taken out."""

import dataclasses

import pytest
import torch
import transformers as T

from architectures import FAMILIES, Family, save, stir
from lightning_mem1.engine.local import engine as local_engine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy import attention, inspection
from lightning_mem1.policy import policy as policy_module
from lightning_mem1.policy.backbone import Head
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.policy.scores import EVERYTHING, Scores
from lightning_mem1.training.self_check import self_check

SETTINGS = EngineSettings(num_slots=4, max_context_tokens=256)
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "head_dim": 8,
}
STATES = {  # layers that keep a state
    "Qwen3.5": Family("Qwen3_5Text", more={**LINEAR, "layer_types": ["linear_attention", "full_attention"]}),
    "LFM2": Family("Lfm2", more={"layer_types": ["conv", "full_attention"]}),
    "Granite hybrid": Family(
        "GraniteMoeHybrid",
        more={
            "layer_types": ["mamba", "attention"],
            "num_local_experts": 0,
            "mamba_n_heads": 4,
            "mamba_d_head": 16,
            "mamba_n_groups": 1,
        },
    ),
}


def load(name, folder, **kwargs):
    family = {**FAMILIES, **STATES}[name]
    save(family, str(folder))
    policy = Policy.load(str(folder), **kwargs)
    stir(policy)
    return policy.train()


def head_alone(monkeypatch):
    monkeypatch.setattr(Head, "__call__", lambda self, hidden: self.source.get_output_embeddings()(hidden))
    monkeypatch.setattr(inspection, "_check_head", lambda *args: None)


def windows_unseen(monkeypatch):
    monkeypatch.setattr(inspection, "_position_rule", lambda *args: EVERYTHING)
    monkeypatch.setattr(inspection, "_in_a_tree", lambda *args: "")  # which would find it out, and leave the packed row


def without(**fields):
    def taken_out(monkeypatch):
        made = lambda *args: dataclasses.replace(Scores(*args), **fields)  # noqa: E731
        monkeypatch.setattr(attention, "Scores", made)
        monkeypatch.setattr(inspection, "_in_a_tree", lambda *args: "")

    return taken_out


def lengths_of_the_pass(monkeypatch):
    monkeypatch.setattr(policy_module, "adopt_rotary", lambda model: None)


def dropout_acts(monkeypatch):
    monkeypatch.setattr(Policy, "train", torch.nn.Module.train)


def keywords_alone(monkeypatch):
    nothing = lambda what: attention.carrying(None)  # noqa: E731
    monkeypatch.setattr(policy_module, "carrying", nothing)
    monkeypatch.setattr(local_engine, "carrying", nothing)


def attention_alone(monkeypatch):
    monkeypatch.setattr(policy_module, "adopt", lambda model: None)
    monkeypatch.setattr(inspection, "_in_a_tree", lambda *args: "")


def one_call_a_layer(monkeypatch):
    result = inspection._Probe.result
    once = lambda *args: dataclasses.replace(result(*args), slots="")  # noqa: E731
    monkeypatch.setattr(inspection._Probe, "result", once)


TAKEN_OUT = [
    ("Granite", head_alone),
    ("Granite-MoE", head_alone),
    ("Cohere", head_alone),
    ("nanochat", head_alone),
    ("Mistral", windows_unseen),
    ("Phi-3, windows", windows_unseen),
    ("Qwen3-MoE, windows", windows_unseen),
    ("Llama 4", windows_unseen),
    ("Gemma 3", windows_unseen),
    ("gpt-oss", without(sinks=None)),
    ("Gemma 2", without(softcap=None)),
    ("Gemma 2", head_alone),
    ("Llama, dynamic", lengths_of_the_pass),
    ("Phi-3, LongRoPE", lengths_of_the_pass),
    ("Phi", dropout_acts),
    ("Seed-OSS", dropout_acts),
    ("Granite", dropout_acts),
    ("StableLM", keywords_alone),
    ("DiffLlama", one_call_a_layer),
    ("Qwen3.5", attention_alone),
    ("LFM2", attention_alone),
    ("Granite hybrid", attention_alone),
]


@pytest.mark.parametrize(("name", "taken_out"), TAKEN_OUT, ids=lambda each: getattr(each, "__name__", each))
def test_a_fix_that_is_taken_out_ends_the_run_in_one_line_with_three_numbers(name, taken_out, tmp_path, monkeypatch):
    gaps = self_check(load(name, tmp_path, lora=LoraSettings(r=2)), SETTINGS)
    assert max(dataclasses.astuple(gaps)) <= 2e-5
    taken_out(monkeypatch)
    layout = "rows" if (name, taken_out) == ("Granite", dropout_acts) else "tree"  # its dropout is attention's alone
    with pytest.raises(ValueError) as raised:
        self_check(load(name, tmp_path, lora=LoraSettings(r=2)), SETTINGS, layout)
    line = str(raised.value)
    assert "\n" not in line and line.startswith(f"training would not score what '{tmp_path}' samples: expected")
    for pair in (f"layout {layout} and the engine", "the engine and plain", f"layout {layout} and plain transformers"):
        assert f"between {pair}" in line


@pytest.mark.parametrize("name", ["Mistral", "Llama 4", "Phi-3, LongRoPE", "Llama, dynamic", "BLOOM"])
@pytest.mark.parametrize("layout", ["tree", "rows", "stitched"])
def test_what_was_shrunk_is_as_before_afterwards(name, layout, tmp_path):
    policy = load(name, tmp_path, lora=LoraSettings(r=2))
    known, config = policy.architecture, policy.causal_lm.config.to_dict()
    state, modes = torch.get_rng_state(), [module.training for module in policy.modules()]
    before = {key: value.clone() for key, value in policy.state_dict().items()}
    self_check(policy, SETTINGS, layout)
    assert policy.architecture == known and policy.causal_lm.config.to_dict() == config
    assert torch.equal(torch.get_rng_state(), state) and [m.training for m in policy.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in policy.state_dict().items())


def test_every_weight_may_train_and_any_engine_of_this_process_may_play(tmp_path):
    policy = load("Gemma 2", tmp_path)
    for settings in (SETTINGS, dataclasses.replace(SETTINGS, kind="transformers")):
        assert max(dataclasses.astuple(self_check(policy, settings))) <= 2e-5


def test_in_16_bits_the_mean_over_tokens_counts(tmp_path):
    policy = load("Mistral", tmp_path, lora=LoraSettings(r=2), dtype="bfloat16")
    assert 1e-6 < max(dataclasses.astuple(self_check(policy, SETTINGS))) <= 0.1


def test_a_run_ends_before_anything_is_trained_unless_the_check_is_off(
    tmp_path, make_module, make_data, fit, monkeypatch
):
    family = dataclasses.replace(FAMILIES["Mistral"], more={"sliding_window": 12})
    save(family, str(tmp_path / "policy"))
    windows_unseen(monkeypatch)
    engine = EngineSettings(num_slots=4, max_context_tokens=160)
    module = make_module(policy=str(tmp_path / "policy"), engine=engine)
    with pytest.raises(ValueError, match="training would not score what .* set model.engine.self_check false"):
        fit(module, make_data(num_rl_steps=1))
    assert module.rl_step == 0
    unchecked = make_module(policy=str(tmp_path / "policy"), engine=dataclasses.replace(engine, self_check=False))
    fit(unchecked, make_data(num_rl_steps=1))
    assert unchecked.rl_step == 1


def test_a_model_whose_layers_are_unknown_trains(tmp_path, make_module, make_data, fit, caplog):
    save(FAMILIES["BLOOM"], str(tmp_path / "policy"))
    module = make_module(policy=str(tmp_path / "policy"), engine=EngineSettings(num_slots=4, max_context_tokens=160))
    trainer = fit(module, make_data(num_rl_steps=2))
    assert module.rl_step == 2 and float(trainer.callback_metrics["train/rollout_gap_max"]) <= 1e-5
    assert len([r for r in caplog.records if "has attention of its own" in r.getMessage()]) == 1


def test_a_router_that_chooses_with_noise_in_training_is_still(tmp_path, monkeypatch):
    save(FAMILIES["Phi-MoE"], str(tmp_path))
    assert T.AutoConfig.from_pretrained(tmp_path).input_jitter_noise == 0.3
    assert max(dataclasses.astuple(self_check(load("Phi-MoE", tmp_path), SETTINGS))) <= 2e-5
    dropout_acts(monkeypatch)
    with pytest.raises(ValueError, match="training would not score what"):
        self_check(load("Phi-MoE", tmp_path), SETTINGS)
