"""Weights that are missing, left over or no numbers: refused in one line that names them."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.training.loading import load_policy
from tiny import tiny_policy


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A model of two layers whose head is not its embedding."""
    folder = tmp_path_factory.mktemp("whole")
    tiny_policy(tied=False).save(folder)
    return folder


@pytest.fixture
def broken(whole, tmp_path):
    """Copies the model with changed weights and settings; returns the folder."""

    def make(change=lambda weights: weights, **config):
        folder = shutil.copytree(whole, tmp_path / "broken")
        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, {"format": "pt"})
        given = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(given | config))
        return str(folder)

    return make


def without(part):
    return lambda weights: {name: weight for name, weight in weights.items() if part not in name}


def spoilt(number):
    def change(weights):
        weight = weights["model.layers.1.mlp.up_proj.weight"].clone()
        weight[3, 4] = number
        return weights | {"model.layers.1.mlp.up_proj.weight": weight}

    return change


@pytest.mark.parametrize(
    ("change", "config", "message"),
    [
        (
            without("layers.1."),
            {},
            "weights are missing from '{}': expected all 27 tensors of the model, got none for "
            "model.layers.1.input_layernorm.weight, model.layers.1.mlp.down_proj.weight and 10 more; use a folder",
        ),
        (
            without("lm_head"),
            {},
            "weights are missing from '{}': expected all 27 tensors of the model, got none for lm",
        ),
        (
            dict,
            {"num_hidden_layers": 1, "layer_types": ["full_attention"]},
            "weights of '{}' do not fit its config.json: expected no layers but the model's, got also model.layers.1.",
        ),
        (
            dict,
            {"intermediate_size": 48},
            "weights of '{}' do not fit its config.json: expected model.layers.0.mlp.down_proj.weight of shape "
            "(32, 48), got (32, 64) and 5 more; use the config that belongs to the weights",
        ),
        (
            spoilt(float("nan")),
            {},
            "weights of '{}' are no numbers: expected finite ones, got nan or infinity in model.layers.1.mlp.up_proj.w",
        ),
        (spoilt(float("-inf")), {}, "weights of '{}' are no numbers: expected finite ones, got nan or infinity in mod"),
    ],
)
def test_weights_that_are_not_there_are_named(broken, capfd, change, config, message):
    folder = broken(change, **config)
    capfd.readouterr()
    with pytest.raises(ValueError) as error:
        Policy.load(folder)
    assert str(error.value).startswith(message.format(folder)) and "\n" not in str(error.value)
    assert "LOAD REPORT" not in "".join(capfd.readouterr())


def test_a_weight_that_outgrows_float16_is_named_and_stays_in_float32(broken):
    folder = broken(spoilt(70000.0))
    with pytest.raises(ValueError, match=r"infinity in model\.layers\.1\.mlp\.up_proj\.weight; .* outgrew float16"):
        Policy.load(folder, dtype="float16")
    Policy.load(folder)


def test_weights_of_no_layer_of_the_model_are_left_out(broken):
    folder = broken(lambda weights: weights | {"tower.patches.weight": torch.ones(2)})
    assert torch.isfinite(Policy.load(folder).causal_lm(torch.tensor([[5, 6]])).logits).all()


def test_a_head_that_is_the_embedding_need_not_be_stored(tmp_path):
    tiny_policy().save(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert Policy.load(str(tmp_path)).causal_lm.lm_head.weight.shape == (320, 32)


def test_a_folder_without_its_tokenizer_is_named(broken):
    folder = broken()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.os.remove(f"{folder}/{name}")
    with pytest.raises(ValueError, match="knows no words: expected tokenizer.json in the folder, got a vocabulary"):
        Policy.load(folder)


@pytest.fixture
def adapter(whole, tmp_path):
    """Saves an adapter that matters with changed tensors; returns its folder and the logits that it gave."""

    def make(change=dict, targets=("q_proj", "v_proj")):
        policy = Policy.load(str(whole), lora=LoraSettings(r=2, target_modules=list(targets))).eval()
        torch.manual_seed(1)
        for name, parameter in policy.named_parameters():
            if "lora_B" in name or "lora_embedding_A" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        policy.save(tmp_path / "adapter")
        file = tmp_path / "adapter/adapter_model.safetensors"
        save_file(change(load_file(file)), file)
        return str(file.parent), logits(policy.model)

    return make


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.arange(5, 25)[None], use_cache=False).logits


def renamed(tensors):
    return {key.replace("model.model.layers", "model.language_model.layers"): tensors[key] for key in tensors}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, "expected weights for 8 layers, got 8 and weights without a layer, base_model.model.language_model"),
        (without("layers.1."), "expected weights for 8 layers, got 4 and a layer without weights, base_model.model.mo"),
        (without("lora_B"), "expected weights for 8 layers, got 4 and a layer without weights, base_model.model.model"),
        (lambda t: t | {"base_model.model.head.weight": torch.ones(1)}, "expected weights of its base's layers, got o"),
        (
            lambda t: t | {next(iter(t)): next(iter(t.values())) * float("nan")},
            "weights of '.*' are no numbers: expected finite ones, got nan or infinity in base_model.model.model.layer",
        ),
    ],
)
def test_an_adapter_whose_weights_would_not_all_act_is_refused(adapter, change, message):
    folder, _ = adapter(change)
    with pytest.raises(ValueError, match=f"adapter '{folder}' does not fit its base '.*': {message}"):
        Policy.load(folder)


@pytest.mark.parametrize("targets", [("q_proj",), ("q_proj", "lm_head"), ("embed_tokens", "v_proj"), ("embed_tokens",)])
def test_an_adapter_says_the_same_merged_and_loaded_again(adapter, targets):
    folder, expected = adapter(targets=targets)
    torch.testing.assert_close(logits(Policy.load(folder).model), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "kind",
    [
        {"use_dora": True},
        {"bias": "lora_only"},
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [5, 6]},
        {"layers_to_transform": [1], "rank_pattern": {"q_proj": 2}},
    ],
)
def test_adapters_of_other_kinds_say_the_same_when_they_are_loaded(whole, tmp_path, kind):
    from peft import LoraConfig, get_peft_model

    model = Policy.load(str(whole)).causal_lm
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", **kind))
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * (0.01 if "magnitude" in name else 0.1))
    expected = logits(adapted)
    adapted.peft_config["default"].base_model_name_or_path = str(whole)
    adapted.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(Policy.load(str(tmp_path)).model), expected, atol=1e-5, rtol=0)
    assert not torch.allclose(logits(Policy.load(str(whole)).model), expected, atol=1e-3)


def test_a_policy_of_a_checkpoint_with_a_weight_that_is_no_number_is_refused(make_module, tmp_path):
    checkpoint = {}
    module = make_module()
    module.on_save_checkpoint(checkpoint)
    checkpoint["hyper_parameters"] = dict(module.hparams)
    name = next(iter(checkpoint["state_dict"]))
    checkpoint["state_dict"][name][0, 0] = float("nan")
    torch.save(checkpoint, tmp_path / "spoilt.ckpt")
    with pytest.raises(ValueError, match=f"broken checkpoint.*: .* nan or infinity in '{name}'"):
        load_policy(tmp_path / "spoilt.ckpt")
