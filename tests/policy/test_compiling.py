"""Layers that torch.compile compiles score and train as they do without."""

from __future__ import annotations

import logging
import random
import shutil
from dataclasses import replace

import pytest
import torch

from generation import request, run
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.policy.compiling import compile_layers, is_compiled
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.policy.sharding import shard
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.training.settings import ComputeSettings
from tiny import random_ids, random_trajectory, tiny_policy
from tiny_recurrent import recurrent_policy

NO_COMPILER = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler here")


def batch(layout: str, seed: int = 0):
    """A group of some trajectories that share a prompt."""
    rng = random.Random(seed)
    prompt = random_ids(rng, 30 + seed)
    group = [random_trajectory(rng, [(8 + seed, 20), (12, 15), (9, 0)], prompt) for _ in range(1 + seed)]
    return collate(group, layout)


def gradients(policy: Policy, given):
    """Log-probabilities (N,), and the gradients of all adapter weights in one vector."""
    policy.zero_grad()
    logprobs, _ = policy.logprobs(given)
    (logprobs * torch.linspace(-1, 1, len(logprobs))).mean().backward()
    return logprobs.detach(), torch.cat([p.grad.flatten() for p in policy.parameters() if p.requires_grad])


@pytest.fixture(autouse=True)
def untraced(caplog):
    """torch would hand pytest thousands of records of what it compiles."""
    caplog.set_level(logging.WARNING, "torch.__trace")


def pair(backend: str):
    """The same policy twice, the second with compiled layers."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    plain, compiled = (tiny_policy(LoraSettings(r=4)).train() for _ in range(2))
    compile_layers(compiled.causal_lm, backend)
    return plain, compiled


def num_graphs() -> int:
    """Graphs compiled since the policies were made."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.parametrize(
    "backend",
    [
        "eager",
        pytest.param("aot_eager", marks=pytest.mark.slow),
        pytest.param("inductor", marks=[NO_COMPILER, pytest.mark.slow]),
    ],
)
def test_compiled_layers_give_the_log_probs_and_gradients_of_plain_ones(backend, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    plain, compiled = pair(backend)
    for again, layout, seed in ((False, "tree", 2), (True, "rows", 1)):
        for policy in (plain, compiled):
            policy.recompute_activations(again)
        given = batch(layout, seed)
        (expected, slope), (got, other) = gradients(plain, given), gradients(compiled, given)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
        assert float((slope - other).norm() / slope.norm()) < 1e-5
    assert num_graphs()


def test_rows_of_other_lengths_compile_nothing_again():
    _, compiled = pair("eager")
    gradients(compiled, batch("tree", 1))
    before = num_graphs()
    for seed in (2, 3, 4):
        gradients(compiled, batch("tree", seed))
    assert num_graphs() == before > 0


def test_the_reference_and_an_engine_are_those_of_plain_layers():
    plain, compiled = pair("eager")
    given = batch("tree", 1)
    with torch.no_grad():
        gradient_free = [policy.logprobs(given)[0] for policy in (plain, compiled)]
        with plain.reference(), compiled.reference():
            reference = [policy.logprobs(given)[0] for policy in (plain, compiled)]
    torch.testing.assert_close(*gradient_free, atol=1e-5, rtol=0)
    torch.testing.assert_close(*reference, atol=1e-5, rtol=0)
    assert float((gradient_free[0] - reference[0]).abs().max()) > 1e-3
    settings = EngineSettings(num_slots=3, max_context_tokens=100)
    asked = [request(i, random_ids(random.Random(i), 10 + i), seed=i) for i in range(3)]
    before = num_graphs()
    turns = [run(LocalEngine(policy.eval(), settings), asked) for policy in (plain, compiled)]
    assert turns[0] == turns[1]
    assert num_graphs() == before
    fixed = run(LocalEngine(compiled, replace(settings, compile="eager")), asked)
    assert [turn.ids for turn in fixed.values()] == [turn.ids for turn in turns[0].values()]


def test_what_cannot_be_compiled_is_refused_in_one_line(tiny_folder):
    refused = "layers cannot be compiled: expected whole weights .* set model.compute.compile to ''"
    with pytest.raises(ValueError, match=refused.replace(".*", ".* got recurrent layers;")):
        compile_layers(recurrent_policy("lfm2")[0].causal_lm, "eager")
    quantised = tiny_policy(LoraSettings(r=4)).causal_lm
    quantised.is_quantized = True
    with pytest.raises(ValueError, match=refused.replace(".*", ".* got weights in 4 bits .*;")):
        compile_layers(quantised, "eager")
    with pytest.raises(ValueError, match="model.compute.compile"):
        Policy.load(str(tiny_folder), lora=LoraSettings(), compile="inducter")
    policy = Policy.load(str(tiny_folder), lora=LoraSettings(), **vars(ComputeSettings(compile="eager")))
    assert is_compiled(policy.causal_lm)
    with pytest.raises(ValueError, match="compiled layers cannot be shared out: .*; set it to '', or trainer.strategy"):
        shard(policy, mesh=None)
