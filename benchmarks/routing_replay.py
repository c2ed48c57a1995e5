"""What routing replay does for a rollout in bfloat16, and what it costs.

    python benchmarks/routing_replay.py --output benchmarks/routing_replay.json     # on a CPU
    python benchmarks/routing_replay.py --device cuda

A random mixture of experts plays in bfloat16. Training scores the turns in bfloat16 (the same weights, other shapes)
and in float32, with the routers' own choices and with those of the rollout. Seconds are those of playing.
"""

from __future__ import annotations

import copy
import math
import random
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish

from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.attention import register
from lightning_mem1.policy.policy import Policy
from lightning_mem1.training.layouts.collate import Batch, collate
from lightning_mem1.types import GenerationRequest, StopReason, Task, Trajectory, Turn
from lightning_mem1.warmstart.tokenizer import train_tokenizer

SHAPE = {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16}
EXPERTS = {"num_experts": 32, "num_experts_per_tok": 4, "moe_intermediate_size": 64, "norm_topk_prob": True}
NUM_EPISODES, CONTEXT, TURN = 16, 192, 48
TOLERANCE = 0.3


def ratios(found: dict[str, Any]) -> Ratios:
    """The mean gap with replay to that without, and the seconds of recording to those of playing."""
    gaps = {
        f"{each['scored_in']}: gap with replay": each["mean_gap"]["replayed"] / each["mean_gap"]["own"]
        for each in found["runs"]
    }
    seconds = found["seconds"]
    return Ratios(lower={**gaps, "seconds with recording": seconds["recorded"] / seconds["played"]})


def main() -> int:
    """Measure, print the table, write, check."""
    parser = arguments("Replay the routing of a rollout in bfloat16.")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["red green blue 0123456789"], vocab_size=300)
    config = Qwen3MoeConfig(vocab_size=len(tokenizer), initializer_range=0.08, **SHAPE, **EXPERTS)
    config._attn_implementation = register()
    policies = {}
    base = Qwen3MoeForCausalLM(config).to(torch.bfloat16)
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        policies[name] = Policy(copy.deepcopy(base).to(dtype), tokenizer, source="random").to(device).eval()
    settings = EngineSettings(num_slots=NUM_EPISODES, max_context_tokens=CONTEXT + TURN, compile="")
    played: dict[bool, list[Trajectory]] = {}
    seconds = {False: math.inf, True: math.inf}  # the shortest of five
    for replays in (False, True) * 5:
        engine = LocalEngine(policies["bfloat16"], replace(settings, replay_routing=replays))
        played[replays], taken = _play(engine)
        seconds[replays] = min(seconds[replays], taken)
    num_bytes = sum(len(turn.experts.data) for t in played[True] for turn in t.turns if turn.experts)
    tokens = sum(len(t.prompt_ids) + len(t.turns[0].action_ids) for t in played[True])
    print(f"played in {seconds[False]:.2f} s, recorded in {seconds[True]:.2f} s, {num_bytes / tokens:.0f} bytes each")
    print("| scored in | routers choose | mean gap | largest gap | tokens with other experts |")
    print("| --- | --- | --- | --- | --- |")
    batch = collate(played[True], "tree").to(device)
    runs = []
    for name, policy in policies.items():
        means = {}
        for replays in (False, True):
            gaps, other = _scored(policy, batch, replays)
            who = "of the rollout" if replays else "their own"
            means["replayed" if replays else "own"] = float(gaps.mean())
            print(f"| {name} | {who} | {gaps.mean():.2g} | {gaps.max():.2g} | {other:.1%} |")
        runs.append({"scored_in": name, "mean_gap": means})
    found = {"seconds": {"played": seconds[False], "recorded": seconds[True]}, "runs": runs}
    return finish(found, ratios, options, TOLERANCE)


def _play(engine: LocalEngine) -> tuple[list[Trajectory], float]:
    rng = random.Random(0)
    prompts = [[rng.randrange(3, 290) for _ in range(CONTEXT)] for _ in range(NUM_EPISODES)]
    engine.reset()
    started, turns = time.perf_counter(), dict[int, Turn]()
    for number, prompt in enumerate(prompts):
        engine.submit(GenerationRequest(number, prompt, TURN, seed=number))
    while engine.pending:
        for done in engine.step():
            turns[done.session] = Turn(done.ids, done.logprobs, experts=done.experts)
    seconds = time.perf_counter() - started
    task = Task("random", "", (), 1)
    return [Trajectory(task, p, [turns[n]], StopReason.DONE) for n, p in enumerate(prompts)], seconds


@torch.no_grad()
def _scored(policy: Policy, batch: Batch, replays: bool) -> tuple[torch.Tensor, float]:
    """Gaps (N,) in nats, and the share of tokens that went to other experts than in the rollout, in any layer."""
    chosen: list[torch.Tensor] = []
    policy.logprobs(batch, replay=replays)  # what is found out at a first pass is found out

    def keep(module: Any, args: Any) -> None:
        chosen.append(args[1].sort(dim=-1).values)

    hooks = [layer.mlp.experts.register_forward_pre_hook(keep) for layer in policy.causal_lm.model.layers]
    gaps = (policy.logprobs(batch, replay=replays)[0] - batch.rollout_logprobs).abs()
    for hook in hooks:
        hook.remove()
    assert batch.experts is not None
    recorded = [part.long().sort(dim=-1).values for part in batch.experts[0].chunk(len(chosen), dim=-1)]
    known = (recorded[0] >= 0).all(dim=-1)
    same = torch.stack([(a == b)[known].all(dim=-1) for a, b in zip(recorded, chosen, strict=True)]).all(dim=0)
    return gaps, 1.0 - float(same.float().mean())


if __name__ == "__main__":
    sys.exit(main())
