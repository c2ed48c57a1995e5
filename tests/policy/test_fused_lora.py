"""LoRA layers that accumulate into the base's output compute what peft's do."""

from __future__ import annotations

import random

import pytest
import torch

from lightning_mem1.policy.fused_lora import fuse_lora
from lightning_mem1.policy.merged import Merged
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.training.settings import ComputeSettings
from tiny import random_ids, random_trajectory, tiny_policy


def batch(layout: str):
    rng = random.Random(0)
    prompt = random_ids(rng, 30)
    return collate([random_trajectory(rng, [(8, 20), (12, 15), (9, 0)], prompt) for _ in range(3)], layout)


def gradients(policy: Policy, given):
    """Log-probabilities (N,), and the gradients of what trains, by name."""
    policy.zero_grad()
    logprobs, _ = policy.logprobs(given)
    (logprobs * torch.linspace(-1, 1, len(logprobs))).mean().backward()
    return logprobs.detach(), {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}


def pair(**settings):
    """The same policy twice, the second with fused layers; the scale of the adapter is no power of two."""
    plain, fused = (tiny_policy(LoraSettings(r=4, alpha=6.0, **settings)).train() for _ in range(2))
    fuse_lora(fused.causal_lm)
    return plain, fused


@pytest.mark.parametrize("layout", ["tree", "rows"])
@pytest.mark.parametrize("again", [False, True])
def test_log_probs_and_every_gradient_are_those_of_peft_but_for_rounding(layout, again):
    plain, fused = pair()
    for policy in (plain, fused):
        policy.recompute_activations(again)
    (expected, slopes), (got, others) = (gradients(policy, batch(layout)) for policy in (plain, fused))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    assert slopes.keys() == others.keys()
    for name, slope in slopes.items():
        assert float((others[name] - slope).norm()) <= 1e-5 * float(slope.norm()), name


def test_in_16_bits_they_are_as_near_to_the_truth_as_peft():
    plain, fused = pair()
    truth = gradients(plain, batch("tree"))[0]
    for policy in (plain, fused):
        policy.causal_lm.to(torch.bfloat16)
        for name, parameter in policy.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.float()
    off = [float((gradients(policy, batch("tree"))[0] - truth).abs().mean()) for policy in (plain, fused)]
    assert 0 < off[1] < 1.5 * off[0]


def test_adapters_are_turned_off_switched_and_merged_as_before():
    plain, fused = pair()
    given = batch("tree")
    for policy in (plain, fused):
        torch.manual_seed(1)
        policy.add_adapter("critic", LoraSettings(r=2, dropout=0.5))
        for name, parameter in policy.named_parameters():
            if "lora_B.critic" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    found = []
    for policy in (plain, fused):
        with torch.no_grad():
            with policy.reference():
                reference = policy.logprobs(given)[0]
            with policy.adapter("critic"):
                critic = policy.logprobs(given)[0]
        torch.manual_seed(2)
        with policy.adapter("critic"):
            dropped = policy.logprobs(given)[0].detach()
        found.append(torch.stack([reference, critic, dropped]))
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)
    assert float((found[0][1] - found[0][0]).abs().max()) > 1e-3 < float((found[0][2] - found[0][1]).abs().max())
    assert not any(hasattr(module, "lora_A") for module in Merged(fused.causal_lm).model.modules())
    assert fused.adapter_state().keys() == plain.adapter_state().keys()


def test_dropout_and_a_policy_without_plain_adapters_are_refused_in_one_line(tiny_folder):
    for lora, got in ((LoraSettings(dropout=0.1), "dropout"), (None, "none")):
        with pytest.raises(ValueError, match=f"LoRA cannot be fused: expected plain LoRA .* got {got}; set model.comp"):
            Policy.load(str(tiny_folder), lora=lora, **vars(ComputeSettings(fused_lora=True)))
