"""How far rollout, `tree`, `rows` and plain transformers are apart on one policy, in nats of an action token.

    python benchmarks/exactness.py --policy Qwen/Qwen3-0.6B

Two episodes of the encyclopedia's questions in each memory mode, with a random adapter; plain transformers runs the
same base with the adapter in its weights and eager attention, each context by itself.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish

from lightning_mem1.context.contexts import contexts
from lightning_mem1.data.qa import QAData
from lightning_mem1.engine.factory import make_engine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.policy.reference import plain_logprobs
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.episodes import make_env
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.types import Trajectory

TOLERANCE = 1.0  # of ratios of rounding errors


def played(policy: Policy, mode: str, new: int, turns: int) -> list[Trajectory]:
    """Two episodes of one task."""
    source = QAData(objectives=2, hops=[1], turns_per_task=turns).source
    task = source.task("train", 0)
    settings = RolloutSettings(prompt="brief", max_new_tokens=new, max_information_tokens=160)
    engine = make_engine(policy.eval(), EngineSettings(num_slots=2, max_context_tokens=2048), lambda: 0, training=True)
    with torch.no_grad():
        episodes = [Episode(task, make_env(source, task), 0, sample) for sample in range(2)]
        return collect(episodes, engine, policy.tokenizer, settings, mode)


def gaps(policy: Policy, mode: str, new: int, turns: int) -> dict[str, float]:
    """Largest gaps of a memory mode, and the mean of `tree`."""
    trajectories = played(policy, mode, new, turns)
    policy.train()
    found: dict[str, float] = {}
    for layout in ("rows", "tree"):
        batch = collate(trajectories, layout, mode).to(policy.device)
        rollout = batch.rollout_logprobs.cpu()
        with torch.no_grad():
            differences = (policy.logprobs(batch)[0].cpu() - rollout).abs()
        found |= {layout: float(differences.max()), "mean": float(differences.mean())}
    pairs = [pair for t in trajectories for pair in zip(contexts(t, mode), t.turns, strict=True)]
    plain = torch.cat([plain_logprobs(policy, context, turn.action_ids) for context, turn in pairs])
    longest = max(len(context) + len(turn.action_ids) for context, turn in pairs)
    return {"plain": float((plain - rollout).abs().max()), **found, "tokens": len(plain), "longest": longest}


def ratios(found: dict[str, Any]) -> Ratios:
    """How much further `tree` is from the rollout than plain transformers is, by memory mode."""
    gap = found["gaps"]
    return Ratios(
        lower={f"tree over plain, {mode}": each["tree"] / max(each["plain"], 1e-9) for mode, each in gap.items()}
    )


def main() -> int:
    parser = arguments(__doc__.split("\n\n")[0])
    parser.add_argument("--policy", default="bundled", help="as model.policy")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--double", action="store_true", help="compute in float64; log-probabilities stay float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--new", type=int, default=32, help="tokens of a turn, at most")
    parser.add_argument("--turns", type=int, default=3, help="turns for each question, at most")
    options = parser.parse_args()
    torch.manual_seed(0)
    policy = Policy.load(options.policy, lora=LoraSettings(r=8), dtype=options.dtype).to(options.device)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    policy = policy.double() if options.double else policy
    print("| memory | rollout - plain | `tree` - rollout | `rows` - rollout | mean of `tree` | tokens | longest |")
    found = {}
    for mode in ("mem1", "full", "summary"):
        row = found[mode] = gaps(policy, mode, options.new, options.turns)
        numbers = [f"{row[name]:.1e}" for name in ("plain", "tree", "rows", "mean")]
        print("|", " | ".join([mode, *numbers, str(row["tokens"]), str(row["longest"])]), "|", flush=True)
    return finish({"policy": options.policy, "gaps": found}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    raise SystemExit(main())
