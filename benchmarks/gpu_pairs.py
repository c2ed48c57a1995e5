"""Arms of gpu.py that take turns in one run: with and without a draw in captured steps, compiled layers, fused LoRA.

Seconds expected on an H200, models made and loaded included, by earlier figures and not measured: capture 20 for each
shape, compile 90, lora 30 (7B: 60). On a CPU, with tiny sizes, arms that a GPU captures or has compiled by inductor run
with torch.compile's backend eager: that tries the script out, and its figures mean nothing.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.policy.policy import Policy
from lightning_mem1.types import Trajectory

Load = Callable[..., Policy]  # options of Policy.load -> a policy on the device
Fill = Callable[[LocalEngine], None]
Make = Callable[..., LocalEngine]  # policy and engine settings -> an engine whose slots all have turns to write
GPU = torch.cuda.is_available()
CAPTURED, COMPILED = ("cudagraphs", "inductor") if GPU else ("eager", "eager")
ROUNDS = 5 if GPU else 2


def clock() -> float:
    """Seconds, once what was launched has run."""
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


def in_turn(arms: dict[str, Callable[[], float]]) -> dict[str, Any]:
    """Milliseconds of each arm, the median of some rounds in which they take turns, and ratios to the first.

    >>> in_turn({"before": lambda: 0.002, "after": lambda: 0.001})["of_first"]
    {'after': 0.5}
    """
    rounds = [{name: arm() for name, arm in arms.items()} for _ in range(ROUNDS)]
    first = next(iter(arms))
    pairs = {name: statistics.median(each[name] / each[first] for each in rounds) for name in arms if name != first}
    return {
        "ms": {name: round(1e3 * statistics.median(each[name] for each in rounds), 3) for name in arms},
        "of_first": {name: round(ratio, 3) for name, ratio in pairs.items()},
    }


def steps_of(engine: LocalEngine, fill: Fill) -> Callable[[], float]:
    """Seconds of a decode step: of all steps behind the first one, which prefills, without waiting between them."""

    def run() -> float:
        fill(engine)
        engine.step()
        begun, count = clock(), 0
        while engine.pending:
            engine.step()
            count += 1
        return (clock() - begun) / count

    run()  # captures
    return run


def capture(load: Load, make: Make, fill: Fill) -> Iterator[dict[str, Any]]:
    """Captured steps, adapter in the weights, whose logits are sampled outside, and steps that sample."""
    policy = load().eval()
    arms = {
        name: steps_of(make(policy, CAPTURED, True, capture_sampling=inside), fill)
        for name, inside in (("outside", False), ("inside", True))
    }
    yield {"arm": "decode step, draw"} | in_turn(arms)


def passes(policy: Policy, trained: Callable[..., None], group: list[Trajectory]) -> Callable[[], float]:
    """Seconds of a training pass, after three to warm up."""

    def run() -> float:
        begun = clock()
        trained(policy, group)
        return clock() - begun

    policy.train()
    for _ in range(3):
        run()
    return run


def compiled(load: Load, trained: Callable[..., None], group: list[Trajectory]) -> Iterator[dict[str, Any]]:
    """Training passes with torch's kernels: layers as they are, and compiled; activations kept."""
    plain = passes(load(), trained, group)
    begun = clock()
    fused = passes(load(compile=COMPILED), trained, group)
    yield {"arm": "training pass, layers", "first_s": round(clock() - begun, 1)} | in_turn(
        {"plain": plain, "compiled": fused}
    )


def lora(
    load: Load, trained: Callable[..., None], group: list[Trajectory], make: Make, fill: Fill
) -> Iterator[dict[str, Any]]:
    """LoRA by peft and fused: training passes, then captured steps with the adapter next to the weights."""
    policies = {"peft": load(), "fused": load(fused_lora=True)}
    yield {"arm": "training pass, LoRA"} | in_turn(
        {name: passes(policy, trained, group) for name, policy in policies.items()}
    )
    gc.collect()
    arms = {name: steps_of(make(policy.eval(), CAPTURED, False), fill) for name, policy in policies.items()}
    yield {"arm": "decode step, LoRA"} | in_turn(arms)
