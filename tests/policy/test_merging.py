"""Adapters into weights, worked by hand: one linear layer of two weights."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from lightning_mem1.policy.merging import merge
from lightning_mem1.policy.policy import LoraSettings, Policy
from tiny import tiny_policy

STEP = 2.0**-7  # from 1 to the next number in bfloat16


class Two(nn.Module):
    """One layer with weights (1, 1)."""

    def __init__(self, dtype):
        super().__init__()
        self.layer = nn.Linear(2, 1, bias=False, dtype=dtype)
        nn.init.ones_(self.layer.weight)

    def forward(self, x):
        return self.layer(x)


def adapted(dtype, adds):
    """An adapter that adds two numbers to the weights (1, 1)."""
    model = get_peft_model(Two(dtype), LoraConfig(r=1, lora_alpha=1, target_modules=["layer"]))
    layer = model.base_model.model.layer
    layer.lora_A["default"].weight.data = torch.tensor([adds])
    layer.lora_B["default"].weight.data = torch.ones(1, 1)
    return model


@pytest.mark.parametrize(
    ("adds", "merged", "lost"),
    [
        ((STEP, 0.0), (1 + STEP, 1.0), 0.0),
        ((0.003, 0.0), (1.0, 1.0), 1.0),  # less than half of a step
        ((STEP, 3 * STEP / 4), (1 + STEP, 1 + STEP), 0.2),  # a quarter of a step too much: 0.25 / (1 + 9 / 16) ** 0.5
        ((0.0, 0.0), (1.0, 1.0), 0.0),
    ],
)
def test_what_rounding_takes_of_an_adapter_is_its_share(adds, merged, lost):
    model, share = merge(adapted(torch.bfloat16, list(adds)))
    assert model.layer.weight.dtype == torch.bfloat16
    assert model.layer.weight.tolist() == [list(merged)]
    assert share == pytest.approx(lost, abs=1e-6)


def test_in_float32_nothing_is_lost():
    model, share = merge(adapted(torch.float32, [0.003, 0.0]))
    assert model.layer.weight[0].tolist() == pytest.approx([1.003, 1.0]) and share == 0.0


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.arange(5, 25)[None]).logits


@pytest.mark.parametrize(
    ("targets", "name", "other"),
    [
        (["q_proj", "lm_head"], "lm_head", "model.embed_tokens"),
        (["q_proj", "embed_tokens"], "model.embed_tokens", "lm_head"),
    ],
)
def test_an_adapter_on_a_head_that_is_the_embedding_is_refused_by_name(targets, name, other):
    message = (
        f"got {name}, whose weights are those of {other}; leave {name.rpartition('.')[2]} out of model.lora.target"
    )
    with pytest.raises(ValueError, match=message):
        tiny_policy(LoraSettings(r=2, target_modules=targets))


def test_a_saved_adapter_on_a_head_that_is_the_embedding_is_refused(tmp_path):
    tiny_policy().save(tmp_path / "base")
    base = Policy.load(str(tmp_path / "base")).causal_lm
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM"))
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="cannot merge into weights that two modules share: .* got one on lm_head"):
        Policy.load(str(tmp_path / "adapter"))


def test_a_whole_head_in_an_adapter_is_refused_where_it_is_the_embedding(tmp_path):
    tiny_policy().save(tmp_path / "base")
    base = Policy.load(str(tmp_path / "base")).causal_lm
    settings = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    model = get_peft_model(base, settings)
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="cannot merge into weights that two modules share: .* got one on lm_head"):
        Policy.load(str(tmp_path / "adapter"))


def test_a_small_adapter_on_a_base_of_16_bits_is_lost_with_a_line_and_kept_in_float32(tmp_path, caplog):
    policy = tiny_policy(LoraSettings(r=2))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=1e-5)
    tiny_policy().save(tmp_path / "base")
    policy.source = str(tmp_path / "base")
    policy.save(tmp_path / "adapter")
    wide = Policy.load(str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(wide.model), logits(policy.model), atol=1e-5, rtol=0)
    assert not caplog.messages
    Policy.load(str(tmp_path / "adapter"), dtype="bfloat16")
    (line,) = caplog.messages
    assert line.startswith(f"adapter '{tmp_path / 'adapter'}': ")
    assert line.endswith("% of what it adds is lost to rounding in bfloat16; set model.compute.dtype float32")
