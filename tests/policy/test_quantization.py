"""QLoRA on the CPU: a base in 4 bits, trained by an adapter, with the optimizers of bitsandbytes."""

import sys

import pytest
import torch

from lightning_mem1.callbacks import RLCheckpoint
from lightning_mem1.training.optimizers import OPTIMIZERS, make_optimizer
from lightning_mem1.training.settings import ComputeSettings, OptimSettings


@pytest.fixture
def bitsandbytes():
    return pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install -e '.[gpu]'")


def test_a_base_in_4_bits_trains_on_what_it_sampled_and_goes_on_from_its_checkpoint(
    bitsandbytes, make_module, make_data, fit, tmp_path
):
    compute = ComputeSettings(quantization="nf4", gradient_checkpointing=True)
    settings = {"compute": compute, "optim": OptimSettings("paged_adamw_8bit")}
    module, checkpoint = make_module(**settings), RLCheckpoint(str(tmp_path), save_adapter=False)
    layer = module.policy.causal_lm.model.layers[0].mlp.up_proj
    assert isinstance(layer.base_layer, bitsandbytes.nn.Linear4bit) and layer.base_layer.weight.dtype == torch.uint8
    before = module.policy.adapter_state()
    trainer = fit(module, make_data(num_rl_steps=1), checkpoint, enable_checkpointing=True)
    assert float(trainer.callback_metrics["train/rollout_gap_max"]) < 1e-4
    assert float(trainer.callback_metrics["train/grad_norm"]) > 0
    after = module.policy.adapter_state()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    content = torch.load(checkpoint.last_path, weights_only=True)
    assert all("lora" in name for name in content["state_dict"])
    again = make_module(**settings)
    fit(again, make_data(num_rl_steps=2, num_val_tasks=0), ckpt_path=str(checkpoint.last_path))
    assert again.rl_step == 2
    with pytest.raises(ValueError, match=r"another base policy: .*; set model.policy and model.compute.quant"):
        fit(make_module(), make_data(), ckpt_path=str(checkpoint.last_path))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_downhill(name, request):
    if name != "adamw":
        request.getfixturevalue("bitsandbytes")
    weight = torch.nn.Parameter(torch.full((64, 64), 2.0))
    optimizer = make_optimizer(name, [{"params": [weight]}], lr=0.1, weight_decay=0.0)
    for _ in range(3):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    assert weight.max().item() == pytest.approx(1.7, abs=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"compute": ComputeSettings(quantization="int3")},
            "unknown quantization: expected one of none, nf4, got 'int3'; set model.compute.quantization",
        ),
        ({"optim": OptimSettings("sgd")}, "unknown optim name: expected one of adamw, .*, got 'sgd'; set model.optim"),
        (
            {"compute": ComputeSettings(quantization="nf4"), "lora": None},
            "a base in 4 bits cannot train: expected an adapter on it",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_named(make_module, settings, message):
    with pytest.raises(ValueError, match=message):
        make_module(**settings)


def test_without_bitsandbytes_one_line_says_what_to_install(make_module, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(
        ValueError, match="model.compute.quantization nf4 needs bitsandbytes: .*; pip install bitsandbytes"
    ):
        make_module(compute=ComputeSettings(quantization="nf4"))
    with pytest.raises(ValueError, match="model.optim.name paged_adamw needs bitsandbytes"):
        make_optimizer("paged_adamw", [], 0.1, 0.0)
