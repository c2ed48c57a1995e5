import pytest
import torch

from architectures import FAMILIES, save, stir
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task

PLAYED = [
    Trajectory(task(), [5, 6, 7, 8], [Turn([9, 10, 11], [0.0] * 3, [12, 13]), Turn([14], [0.0])], StopReason.DONE)
]


def load(name, folder, **kwargs):
    save(FAMILIES[name], str(folder))
    policy = Policy.load(str(folder), **kwargs)
    stir(policy)
    return policy


def scores(policy):
    return policy.logprobs(collate(PLAYED))[0]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["Phi", "Seed-OSS", "Granite", "GPT-2", "OPT", "Phi-MoE"])
def test_dropout_and_noise_of_a_base_are_off_while_it_trains(name, checkpointing, tmp_path):
    policy = load(name, tmp_path, lora=LoraSettings(r=2), gradient_checkpointing=checkpointing)
    still = scores(policy.eval()).detach()
    torch.testing.assert_close(scores(policy.train()), still, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["StableLM", "GPT-2", "Seed-OSS", "Llama, dynamic", "BLOOM"])
def test_activations_computed_again_give_the_same_gradients(name, tmp_path):
    grads = []
    for checkpointing in (False, True):
        policy = load(name, tmp_path, gradient_checkpointing=checkpointing).train()
        scores(policy).sum().backward()
        grads.append([p.grad for p in policy.parameters() if p.grad is not None])
    recomputed = [m for m in policy.causal_lm.modules() if "_gradient_checkpointing_func" in m.__dict__ and m.training]
    assert recomputed  # the layers, and nothing inside of them
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_the_dropout_of_adapters_acts_where_there_is_a_gradient_and_nowhere_else(tmp_path):
    policy = load("Qwen2", tmp_path, lora=LoraSettings(r=4, dropout=0.5))
    still = scores(policy.eval()).detach()
    policy.train()
    with torch.no_grad():
        assert torch.equal(scores(policy), scores(policy))
        torch.testing.assert_close(scores(policy), still, atol=1e-6, rtol=0)
    torch.manual_seed(0)
    assert (scores(policy) - still).abs().max() > 1e-3


def test_a_copy_of_a_policy_recomputes_its_own_layers(tmp_path):
    import copy

    policy = load("Qwen2", tmp_path, gradient_checkpointing=True).train()
    twin = copy.deepcopy(policy)
    for (name, layer), (_, other) in zip(policy.named_modules(), twin.named_modules(), strict=True):
        if "_gradient_checkpointing_func" in layer.__dict__:
            assert layer._gradient_checkpointing_func.args == (layer,), name
            assert other._gradient_checkpointing_func.args == (other,), name
