"""Whether keys of the turn before could be used again where a rewritten context moves its tokens.

    OMP_NUM_THREADS=1 python benchmarks/reusable_keys.py --output benchmarks/reusable_keys.json

In memory mode `mem1` the tokens of a turn stand in the next context as well, further to the front. Rotary keys can be
turned back by the shift. What is left is what a layer reads: the turn was written after information that is gone from
the next context. The table has, by layer, how far keys (before rotation) and values of those tokens differ between the
two contexts: the norm of the difference over that of the values in the new context. 0 could be used again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish
from engine_speed import GROUP, workload

from lightning_mem1.context.contexts import Contexts
from lightning_mem1.policy.backbone import decoder_layers
from lightning_mem1.policy.policy import Policy
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.types import Trajectory

TOLERANCE = 0.2


def projected(policy: Policy, ids: list[int]) -> list[tuple[Tensor, Tensor]]:
    """Keys before rotation and values (T, width) of a context, by layer."""
    found: list[tuple[Tensor, Tensor]] = []
    hooks = []
    for layer in decoder_layers(policy.causal_lm).values():
        attention: Any = layer.self_attn
        kept: list[Tensor] = []
        for part in (attention.k_proj, attention.v_proj):
            hooks.append(part.register_forward_hook(lambda _, __, out, kept=kept: kept.append(out[0])))
        found.append(kept)  # type: ignore[arg-type]
    with torch.no_grad():
        policy.causal_lm(input_ids=torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return [(keys, values) for keys, values in found]


def differences(policy: Policy, trajectories: list[Trajectory]) -> dict[str, Any]:
    """Relative differences by layer, over all turns that a later context shows."""
    contexts, tokens = Contexts("mem1"), 0
    above: list[float] = []
    below: list[float] = []
    for trajectory in trajectories:
        rows = [
            [*context.ids, *turn.action_ids]
            for context, turn in zip(contexts.of(trajectory), trajectory.turns, strict=True)
        ]
        prompt = len(trajectory.prompt_ids)
        for turn, (row, following) in enumerate(zip(rows, rows[1:], strict=False)):
            ids = trajectory.turns[turn].action_ids
            if turn == 0 or following[prompt : prompt + len(ids)] != ids:
                continue  # nothing had left before the first turn was written
            before, after = projected(policy, row), projected(policy, following[: prompt + len(ids)])
            tokens += len(ids)
            for layer, (old, new) in enumerate(zip(before, after, strict=True)):
                for kind in (0, 1):
                    was, now = old[kind][-len(ids) :], new[kind][-len(ids) :]
                    while len(above) <= 2 * layer + kind:
                        above.append(0.0)
                        below.append(0.0)
                    above[2 * layer + kind] += float((was - now).square().sum())
                    below[2 * layer + kind] += float(now.square().sum())
    apart = [(one / other) ** 0.5 for one, other in zip(above, below, strict=True)]
    return {"tokens": tokens, "keys": apart[0::2], "values": apart[1::2]}


def ratios(found: dict[str, Any]) -> Ratios:
    """The smallest difference behind the first layer, which would have to be 0."""
    return Ratios(higher={"behind the first layer": min(found["keys"][1:] + found["values"][1:])})


def main() -> int:
    """Play, compare, print, write, check."""
    parser = arguments("How far keys and values of a turn differ in the next context.")
    parser.add_argument("--policy", default="bundled")
    parser.add_argument("--tasks", type=int, default=8, help="of GROUP episodes each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    source, settings, engines = workload("webshop", options.policy, "")
    engine = engines["local"]()
    tasks = [source.task("train", index) for index in range(options.tasks)]
    episodes = [
        Episode(task, source.env(task), n, seed=n * GROUP + k) for n, task in enumerate(tasks) for k in range(GROUP)
    ]
    with torch.no_grad():
        played = collect(episodes, engine, engine.policy.tokenizer, settings)
    found = differences(engine.policy, played)
    print("| layer | keys | values |\n| --- | --- | --- |")
    for layer, pair in enumerate(zip(found["keys"], found["values"], strict=True)):
        print(f"| {layer} | {pair[0]:.2g} | {pair[1]:.2g} |")
    return finish({"policy": options.policy, "episodes": len(played), **found}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
