"""What only a GPU runs: captured steps and draws, FlexAttention's backward pass, fused kernels, 16 and 4 bits."""

from __future__ import annotations

import random
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from generation import request, run
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import random_ids, random_trajectory, task, tiny_policy

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def grouped(seed: int = 0):
    """Three trajectories that share a prompt."""
    rng = random.Random(seed)
    prompt = random_ids(rng, 200)
    return [random_trajectory(rng, [(30, 40), (25, 60), (35, 0)], prompt) for _ in range(3)]


def gradients(policy: Policy, batch):
    """Log-probabilities (N,), and the gradients of all adapter weights in one vector."""
    policy.zero_grad()
    logprobs, _ = policy.logprobs(batch.to("cuda"))
    (logprobs * torch.linspace(-1, 1, len(logprobs), device="cuda")).mean().backward()
    return logprobs.detach(), torch.cat([p.grad.flatten() for p in policy.parameters() if p.requires_grad])


@pytest.mark.parametrize("compiled", ["", "cudagraphs", "inductor"])
def test_decoding_writes_what_a_cpu_would_and_captured_steps_follow_the_weights(compiled):
    rng = random.Random(5)
    settings = EngineSettings(num_slots=4, max_context_tokens=600, prefill_interval=3 if compiled else 1)
    asked = [request(i, random_ids(rng, n), seed=i, n=12) for i, n in enumerate([20, 290, 299, 7, 310, 40])]
    here = LocalEngine(tiny_policy(LoraSettings(r=4)), settings)
    there = LocalEngine(tiny_policy(LoraSettings(r=4)).to("cuda"), replace(settings, compile=compiled))
    for _ in range(2):
        for engine in (here, there):
            engine.reset()
        expected, got = run(here, asked), run(there, asked)
        for session, turn in expected.items():
            assert got[session].ids == turn.ids
            assert got[session].logprobs == pytest.approx(turn.logprobs, abs=1e-4)
        for each in (here, there):
            for name, parameter in each.policy.named_parameters():
                if "lora_B" in name:
                    parameter.data.neg_()


@pytest.mark.parametrize("compiled", ["cudagraphs", "inductor"])
def test_a_draw_within_a_captured_step_is_the_draw_outside_of_it(compiled):
    outside = EngineSettings(num_slots=4, max_context_tokens=600, compile=compiled)
    policy, rng = tiny_policy(LoraSettings(r=4)).to("cuda"), random.Random(5)
    kinds = [{"temperature": 0.0}, {"temperature": 0.7}, {"top_p": 0.5}, {"stop": ("e",)}, {"stop_ids": (5, 90, 200)}]
    asked = [
        request(i, random_ids(rng, n), seed=i, n=4 + 3 * (i % 4), **kinds[i % len(kinds)])
        for i, n in enumerate([20, 290, 299, 7, 310, 40, 60, 3, 80, 100])
    ]
    engines = [LocalEngine(policy, replace(outside, capture_sampling=inside)) for inside in (False, True)]
    for _ in range(2):
        for engine in engines:
            engine.reset()
        expected, got = (run(engine, asked) for engine in engines)
        for session, turn in expected.items():
            assert got[session].ids == turn.ids
            assert got[session].logprobs == pytest.approx(turn.logprobs, abs=1e-5)
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.data.neg_()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compiled_layers_change_no_more_than_rounding(dtype):
    plain, compiled, exact = (
        Policy.load("bundled", lora=LoraSettings(), dtype=kind, compile=backend).to("cuda").train()
        for kind, backend in ((dtype, ""), (dtype, "inductor"), ("float32", ""))
    )
    assert_as_near(plain, compiled, exact)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fused_lora_changes_no_more_than_rounding(dtype):
    plain, fused, exact = (
        Policy.load("bundled", lora=LoraSettings(), dtype=kind, fused_lora=how).to("cuda").train()
        for kind, how in ((dtype, False), (dtype, True), ("float32", False))
    )
    assert_as_near(plain, fused, exact)


def assert_as_near(plain: Policy, other: Policy, exact: Policy) -> None:
    """Another way to compute is as near to float32 as the plain one, in log-probabilities and gradients."""
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(value.shape, generator=generator) * 0.02 if "lora_B" in name else value
        for name, value in exact.adapter_state().items()
    }
    for policy in (plain, other, exact):
        policy.load_adapter_state(state)
    for layout in ("tree", "rows"):
        batch = collate(grouped(), layout)
        (truth, slope), one, two = (gradients(policy, batch) for policy in (exact, plain, other))
        off = [(float((p - truth).abs().mean()), float((g - slope).norm() / slope.norm())) for p, g in (one, two)]
        assert off[1][0] < 2 * off[0][0] + 1e-3 and off[1][1] < 2 * off[0][1] + 1e-3


def test_flex_attention_and_segments_give_the_same_gradients_for_rows_of_any_length():
    segments = Policy.load("bundled", lora=LoraSettings(), attention="segments").to("cuda")
    flex = Policy.load("bundled", lora=LoraSettings(), attention="flex").to("cuda")
    flex.load_adapter_state(segments.adapter_state())
    for count in (1, 2, 3):
        batch = collate(grouped(count)[:count], "tree")
        (expected, slope), (got, other) = gradients(segments, batch), gradients(flex, batch)
        torch.testing.assert_close(got, expected, atol=1e-3, rtol=0)
        assert float((slope - other).norm() / slope.norm()) < 1e-2


def test_segments_have_the_gradients_of_a_cpu():
    batch = collate(grouped(), "tree")
    here, there = (Policy.load("bundled", lora=LoraSettings(), attention="segments") for _ in range(2))
    there.load_adapter_state(here.adapter_state())
    slope = gradients(there.to("cuda"), batch)[1].cpu()
    logprobs, _ = here.logprobs(batch)
    (logprobs * torch.linspace(-1, 1, len(logprobs))).mean().backward()
    expected = torch.cat([p.grad.flatten() for p in here.parameters() if p.requires_grad])
    assert float((slope - expected).norm() / expected.norm()) < 1e-2


def test_mixed_precision_attends_in_16_bits_and_scores_as_float32_but_for_rounding():
    policy = Policy.load("bundled", lora=LoraSettings()).to("cuda")
    batch = collate(grouped(), "tree")
    truth, slope = gradients(policy, batch)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        got, other = gradients(policy, batch)
    assert float((got - truth).abs().mean()) < 0.05
    assert float((other - slope).norm() / slope.norm()) < 0.1


def test_flash_attention_over_blocks_gives_the_gradients_of_segments_but_for_rounding():
    segments = Policy.load("bundled", lora=LoraSettings(), dtype="bfloat16", attention="segments").to("cuda")
    varlen = Policy.load("bundled", lora=LoraSettings(), dtype="bfloat16", attention="varlen").to("cuda")
    exact = Policy.load("bundled", lora=LoraSettings(), attention="segments").to("cuda")
    for policy in (varlen, exact):
        policy.load_adapter_state(segments.adapter_state())
    for count in (1, 3):
        batch = collate(grouped(count)[:count], "tree")
        (truth, slope), one, other = gradients(exact, batch), gradients(segments, batch), gradients(varlen, batch)
        off = [(float((p - truth).abs().mean()), float((g - slope).norm() / slope.norm())) for p, g in (one, other)]
        assert off[1][0] < 2 * off[0][0] + 1e-3 and off[1][1] < 2 * off[0][1] + 1e-3


@pytest.mark.skipif(not find_spec("liger_kernel"), reason="liger-kernel is not installed")
def test_fused_kernels_change_no_more_than_rounding():
    plain = Policy.load("bundled", lora=LoraSettings()).to("cuda")
    fused = Policy.load("bundled", lora=LoraSettings(), kernels="liger").to("cuda")
    fused.load_adapter_state(plain.adapter_state())
    batch = collate(grouped(), "tree")
    (expected, slope), (got, other) = gradients(plain, batch), gradients(fused, batch)
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=0)
    assert float((slope - other).norm() / slope.norm()) < 1e-2


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_what_was_sampled_in_16_or_4_bits_is_scored_nearly_alike(quantization):
    if quantization == "nf4":
        pytest.importorskip("bitsandbytes")
    policy = Policy.load("bundled", lora=LoraSettings(), dtype="bfloat16", quantization=quantization).to("cuda").eval()
    engine = LocalEngine(policy, EngineSettings(num_slots=4, max_context_tokens=600, compile="cudagraphs"))
    prompts = [random_ids(random.Random(i), 150) for i in range(4)]
    turns = run(engine, [request(i, prompt, seed=i, n=40) for i, prompt in enumerate(prompts)])
    gaps = []
    for number, prompt in enumerate(prompts):
        played = Trajectory(task(), prompt, [Turn(turns[number].ids, turns[number].logprobs)], StopReason.DONE)
        scored, _ = policy.logprobs(collate([played], "tree").to("cuda"))
        gaps.append((scored.detach().cpu() - torch.tensor(turns[number].logprobs)).abs())
    assert float(torch.cat(gaps).mean()) < 0.05
