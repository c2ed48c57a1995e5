"""Tokens and time of a training pass by layout: `tree`, `rows`, and the packed row of `tree` under a dense mask.

    OMP_NUM_THREADS=1 python benchmarks/layout_speed.py --output benchmarks/layout_speed.json
    OMP_NUM_THREADS=1 python benchmarks/layout_speed.py --check benchmarks/layout_speed.json
    python benchmarks/layout_speed.py --device cuda --dtype bfloat16 --policy FOLDER

A pass is collating, log-probabilities of every action token, and the gradient of every LoRA weight (all linear layers).
The three take turns on the same trajectories, so that whatever else the machine does falls on all of them; a figure is
the ratio of their medians. Their log-probabilities are compared before anything is timed.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish, integers

from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.training.layouts.collate import Batch, collate
from lightning_mem1.types import StopReason, Task, Trajectory, Turn

ARMS = ("tree", "rows", "dense")
ACTION, INFORMATION = 60, 150  # tokens
TOLERANCE = 0.15  # how much worse a ratio may be than the committed one, as a part of it


def made(rng: random.Random, prompt: int, turns: int, group: int, vocabulary: int) -> list[Trajectory]:
    """A group of trajectories of one prompt, of random ids."""

    def ids(count: int) -> list[int]:
        return [rng.randrange(vocabulary) for _ in range(count)]

    start, task = ids(prompt), Task("benchmark/0", "", (), turns)
    return [
        Trajectory(
            task,
            start,
            [Turn(ids(ACTION), [0.0] * ACTION, ids(INFORMATION if t + 1 < turns else 0)) for t in range(turns)],
            StopReason.DONE,
        )
        for _ in range(group)
    ]


def batch_of(arm: str, trajectories: Sequence[Trajectory]) -> Batch:
    """The batch of a layout; `dense` is that of `tree` with its mask written out."""
    batch = collate(trajectories, "rows" if arm == "rows" else "tree")
    if arm != "dense":
        return batch
    assert batch.tree is not None
    places = torch.arange(batch.input_ids.shape[1])
    mask = batch.tree.visible(places[:, None], places[None, :])
    return replace(batch, tree=None, attention_mask=mask[None, None])


def timed(policy: Policy, arm: str, trajectories: Sequence[Trajectory]) -> tuple[float, int, torch.Tensor]:
    """Seconds of a pass, its tokens, and the log-probabilities (N,)."""
    policy.zero_grad()
    begun = clock(policy.device)
    batch = batch_of(arm, trajectories).to(policy.device)
    logprobs, _ = policy.logprobs(batch)
    logprobs.mean().backward()
    return clock(policy.device) - begun, batch.num_tokens, logprobs.detach()


def clock(device: torch.device) -> float:
    """Seconds, once the device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def measured(policy: Policy, prompt: int, turns: int, group: int, repeats: int) -> dict[str, Any]:
    """Tokens and milliseconds of every arm at one shape, and the ratios of `tree` to the others."""
    trajectories = made(random.Random(0), prompt, turns, group, policy.config.vocab_size)
    first = {arm: timed(policy, arm, trajectories) for arm in ARMS}  # also warms up
    for arm in ARMS:
        gaps = (first[arm][2] - first["tree"][2]).abs()
        if policy.causal_lm.dtype == torch.float32:
            assert gaps.max() <= 1e-3, f"{arm} and tree score differently: {gaps.max():.2g} nats in a token"
        assert gaps.mean() <= 0.1, f"{arm} and tree score differently: {gaps.mean():.2g} nats a token"
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for _ in range(repeats):
        for arm in ARMS:
            seconds[arm].append(timed(policy, arm, trajectories)[0])
    median = {arm: statistics.median(seconds[arm]) for arm in ARMS}
    return {
        "prompt": prompt,
        "turns": turns,
        "group": group,
        "tokens": {arm: first[arm][1] for arm in ("tree", "rows")},
        "ms": {arm: round(1e3 * median[arm], 1) for arm in ARMS},
        "tokens_to_rows": round(first["tree"][1] / first["rows"][1], 3),
        "time_to_rows": round(median["tree"] / median["rows"], 3),
        "time_to_dense": round(median["tree"] / median["dense"], 3),
    }


def ratios(found: dict[str, Any]) -> Ratios:
    """The ratios of `tree` at every shape."""
    return Ratios(
        lower={
            f"prompt {each['prompt']}, turns {each['turns']}, group {each['group']}: {name}": each[name]
            for each in found["shapes"]
            for name in ("tokens_to_rows", "time_to_rows", "time_to_dense")
        }
    )


def main() -> int:
    """Measure, print a table, write, check."""
    parser = arguments("Compare the layouts' tokens and time.")
    parser.add_argument("--policy", default="bundled")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--turns", type=integers, default=[2, 4, 8, 16, 32])
    parser.add_argument("--prompts", type=integers, default=[100, 300, 1000])
    parser.add_argument("--group", type=int, default=1, help="trajectories of one prompt in a pass")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    lora = LoraSettings(target_modules="all-linear")
    policy = Policy.load(options.policy, lora=lora, dtype=options.dtype).to(options.device)
    found = []
    print("| prompt | turns | tokens to rows | time to rows | time to dense | tree ms | rows ms | dense ms |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for prompt in options.prompts:
        for turns in options.turns:
            one = measured(policy, prompt, turns, options.group, options.repeats)
            cells = " | ".join(f"{one[name]:.2f}" for name in ("tokens_to_rows", "time_to_rows", "time_to_dense"))
            print(f"| {prompt} | {turns} | {cells} | {' | '.join(str(one['ms'][arm]) for arm in ARMS)} |", flush=True)
            found.append(one)
    about = {"policy": options.policy, "action_tokens": ACTION, "information_tokens": INFORMATION}
    return finish({**about, "repeats": options.repeats, "shapes": found}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
