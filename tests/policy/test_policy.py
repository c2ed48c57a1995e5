import json
import sys

import pytest
import torch
from safetensors.torch import load_file

from lightning_mem1.policy.backbone import trains_head
from lightning_mem1.policy.logprobs import chunked_logprobs
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task, tiny_policy

BATCH = collate([Trajectory(task(), [5, 6], [Turn([7, 8, 9], [0.0] * 3)], StopReason.DONE)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy")
    tiny_policy().save(path)
    return path


def test_chunked_log_probs_and_entropies_equal_the_whole_softmax_and_so_do_gradients():
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 20, bias=False)
    ids = torch.arange(7)
    results = []
    for chunk in (2, 100):
        hidden = torch.randn(7, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
        logprobs, entropies = chunked_logprobs(hidden, head, ids, temperature=0.7, chunk=chunk)
        results.append((logprobs, entropies, *torch.autograd.grad((logprobs + entropies).sum(), [hidden, head.weight])))
    whole = torch.distributions.Categorical(logits=head(hidden) / 0.7)
    for small, large in zip(*results, strict=True):
        torch.testing.assert_close(small, large, atol=1e-6, rtol=0)
    torch.testing.assert_close(results[0][0], whole.log_prob(ids), atol=1e-6, rtol=0)
    torch.testing.assert_close(results[0][1], whole.entropy(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_scoring_a_fixed_head_once_gives_the_same_numbers_and_gradients(temperature):
    def head(h):
        return 3 * torch.tanh(torch.nn.functional.linear(h, weight) / 3)  # as models with a soft cap have

    torch.manual_seed(0)
    weight, ids, factors = torch.randn(20, 8), torch.arange(7), torch.randn(7)
    hidden = torch.randn(7, 8, requires_grad=True)
    found = {}
    for once in (False, True):
        logprobs, entropies = chunked_logprobs(hidden, head, ids, temperature, chunk=3, once=once)
        found[once] = logprobs, entropies.detach(), torch.autograd.grad((logprobs * factors).sum(), hidden)[0]
        assert entropies.requires_grad is not once
    for one, other in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("lora, targets, trains", [(4, "all-linear", False), (0, None, True)])
def test_a_head_is_scored_once_only_where_its_weights_stay(lora, targets, trains):
    policy = tiny_policy(LoraSettings(r=lora, target_modules=targets) if lora else None)
    assert trains_head(policy.causal_lm) is trains
    entropies = policy.logprobs(BATCH, entropy_gradient=False)[1]
    assert entropies.requires_grad is trains


def test_only_the_adapter_named_policy_trains():
    policy = tiny_policy(LoraSettings(r=4))
    trained = [name for name, p in policy.named_parameters() if p.requires_grad]
    assert trained
    assert all(".policy.weight" in name and "lora_" in name for name in trained)


def test_with_adapters_off_the_policy_is_its_base_bit_for_bit():
    adapted, base = tiny_policy(LoraSettings(r=4)), tiny_policy()
    with torch.no_grad():
        with adapted.reference():
            off = adapted.logprobs(BATCH)[0]
        assert torch.equal(off, base.logprobs(BATCH)[0])
        assert not torch.allclose(adapted.logprobs(BATCH)[0], off, atol=1e-3)


def test_full_training_has_no_reference():
    with pytest.raises(ValueError, match="expected an adapter"), tiny_policy().reference():
        pass


def test_adapter_weights_go_out_and_back():
    first, second = tiny_policy(LoraSettings(r=4)), tiny_policy(LoraSettings(r=4))
    for parameter in second.parameters():
        if parameter.requires_grad:
            parameter.data.zero_()
    second.load_adapter_state(first.adapter_state())
    with torch.no_grad():
        assert torch.equal(first.logprobs(BATCH)[0], second.logprobs(BATCH)[0])


def test_an_adapter_of_another_rank_is_refused_by_name():
    state = tiny_policy(LoraSettings(r=2)).adapter_state()
    with pytest.raises(ValueError, match=r"expected .*lora_A.* of shape \(4, 32\), got \(2, 32\)"):
        tiny_policy(LoraSettings(r=4)).load_adapter_state(state)


def test_an_adapter_is_saved_in_pefts_own_format(tmp_path):
    policy = tiny_policy(LoraSettings(r=4))
    policy.save(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert {tuple(t.shape) for t in saved.values()} >= {(4, 32), (32, 4)}
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 4


def test_a_saved_policy_loads_from_its_folder_and_scores_the_same(folder):
    loaded = Policy.load(str(folder))
    with torch.no_grad():
        torch.testing.assert_close(loaded.logprobs(BATCH)[0], tiny_policy().logprobs(BATCH)[0])
    assert loaded.tokenizer.encode("Red SHOES 12") == tiny_policy().tokenizer.encode("Red SHOES 12")
    assert loaded.tokenizer.encode("Red SHOES") == loaded.tokenizer.encode("red shoes")


def test_gradient_checkpointing_changes_no_gradient(folder):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        policy = Policy.load(str(folder), lora=LoraSettings(r=4), gradient_checkpointing=checkpointing).train()
        trained = [p for p in policy.parameters() if p.requires_grad]
        gradients.append(torch.autograd.grad(policy.logprobs(BATCH)[0].sum(), trained))
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./nowhere", "expected 'bundled', a folder or a hub id"),
        ("bundeld", "got 'bundeld'; set model.policy"),
    ],
)
def test_a_source_that_is_neither_folder_nor_hub_id_is_refused(source, message):
    with pytest.raises(FileNotFoundError, match=message):
        Policy.load(source)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected config.json and \*.safetensors"):
        Policy.load(str(tmp_path))


def test_a_hub_id_without_a_network_says_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="cannot load policy 'nobody/nothing' from the hub: .* or set model.policy to"):
        Policy.load("nobody/nothing")


def test_truncated_weights_are_refused(folder, tmp_path):
    for file in folder.iterdir():
        data = file.read_bytes()
        (tmp_path / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".safetensors" else data)
    with pytest.raises(ValueError, match="expected a complete config, tokenizer and safetensors"):
        Policy.load(str(tmp_path))


def test_unknown_dtype_and_attention_are_refused(folder):
    with pytest.raises(ValueError, match="expected one of float32, bfloat16, float16, got 'int3'"):
        Policy.load(str(folder), dtype="int3")
    with pytest.raises(ValueError, match="expected one of auto, segments, flex, varlen, got 'dense'"):
        Policy.load(str(folder), attention="dense")


@pytest.mark.parametrize("target", ["all-linear", ["q_proj", "lm_head"]])
def test_on_a_base_of_16_bits_adapters_keep_their_float32_weights_and_compute_in_16(target, tmp_path):
    tiny_policy(tied=False).save(tmp_path)
    policy = Policy.load(str(tmp_path), lora=LoraSettings(target_modules=target), dtype="bfloat16")
    seen: set[torch.dtype] = set()
    for name, module in policy.named_modules():
        if "lora_A.policy" in name:
            module.register_forward_hook(lambda module, args, out: seen.update({args[0].dtype, out.dtype}))
    logprobs, _ = policy.logprobs(BATCH)
    logprobs.mean().backward()
    assert seen == {torch.bfloat16}
    trained = [p for p in policy.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {p.grad.dtype for p in trained} == {torch.float32}


def test_fused_kernels_are_refused_without_what_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    with pytest.raises(ValueError, match="needs liger-kernel: expected it to be installed, got none; pip install"):
        Policy.load("bundled", kernels="liger")
