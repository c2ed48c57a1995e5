"""How far each layout is from the rollout: nats per action token, by turn, and ratios outside the clip range.

    OMP_NUM_THREADS=1 python benchmarks/layout_gap.py --output benchmarks/layout_gap.json

Episodes are sampled as experiments/webshop.yaml does, and every layout scores the same ones with the same weights.
A gap is |log p of the layout - log p when it was sampled|; with an exact layout what is left of it is rounding.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish

from lightning_mem1.context.internal_state import state_end
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.environments.webshop.tasks import ShopTasks
from lightning_mem1.policy.policy import Policy
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.training.layouts.microbatches import split_by_tokens
from lightning_mem1.training.layouts.spans import LAYOUTS
from lightning_mem1.types import Trajectory

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "webshop.yaml"
EPSILON = 0.2  # clip range of the algorithms but dapo and gspo
TOLERANCE = 0.25


def played(policy: Policy, config: dict[str, Any], episodes: int, memory: str) -> list[Trajectory]:
    """Sample episodes of different training tasks."""
    source = ShopTasks(results_per_page=config["data"]["init_args"]["results_per_page"])
    tasks = [source.task("train", index) for index in range(episodes)]
    engine = LocalEngine(policy, EngineSettings(**config["model"]["engine"]))
    started = [Episode(task, source.env(task), number, seed=number) for number, task in enumerate(tasks)]
    return collect(started, engine, policy.tokenizer, RolloutSettings(**config["model"]["rollout"]), memory)


@torch.no_grad()
def gaps(
    policy: Policy, trajectories: Sequence[Trajectory], layout: str, memory: str, settings: RolloutSettings
) -> Any:
    """Differences (N,) of the log-probabilities in nats, the turns (N,) they belong to, and the tokens it took."""
    end = partial(
        state_end,
        decode=settings.encoder(policy.tokenizer).decode,
        tag=settings.tags.internal_state,
    )
    differences, turns, tokens = [], [], 0
    for part in split_by_tokens(trajectories, 4096, layout, memory):
        batch = collate([trajectories[i] for i in part], layout, memory, state_end=end)
        differences.append(policy.logprobs(batch, settings.temperature)[0] - batch.rollout_logprobs)
        turns.append(batch.turn_index)
        tokens += batch.num_tokens
    return torch.cat(differences), torch.cat(turns), tokens


def told(difference: torch.Tensor, turns: torch.Tensor, tokens: int) -> dict[str, Any]:
    """The figures of a layout."""
    gap, ratio = difference.abs(), difference.exp()
    outside = (ratio < 1 - EPSILON) | (ratio > 1 + EPSILON)
    by_turn = {
        str(turn): {
            "mean_nats": _short(gap[turns == turn].mean()),
            "outside_clip": _short(outside[turns == turn].float().mean()),
            "tokens": int((turns == turn).sum()),
        }
        for turn in turns.unique().tolist()
    }
    return {
        "mean_nats": _short(gap.mean()),
        "p99_nats": _short(gap.quantile(0.99)),
        "max_nats": _short(gap.max()),
        "outside_clip": _short(outside.float().mean()),
        "forward_tokens": tokens,
        "by_turn": by_turn,
    }


def _short(number: torch.Tensor) -> float:
    return float(f"{float(number):.3g}")


def ratios(found: dict[str, Any]) -> Ratios:
    """Tokens beside those of `rows`, and the share of ratios that a layout throws out of the clip range."""
    layouts = found["layouts"]
    tokens = {f"{name} to rows, tokens": one["forward_tokens"] for name, one in layouts.items() if name != "rows"}
    return Ratios(
        lower={
            **{name: count / layouts["rows"]["forward_tokens"] for name, count in tokens.items()},
            **{f"{name}, outside the clip range": one["outside_clip"] for name, one in layouts.items()},
        }
    )


def main() -> int:
    """Measure, print tables, write, check."""
    parser = arguments("Measure how far each layout is from the rollout.")
    parser.add_argument("--policy", default="bundled")
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--memory", default="mem1")
    options = parser.parse_args()
    config = yaml.safe_load(EXPERIMENT.read_text())
    settings = RolloutSettings(**config["model"]["rollout"])
    policy = Policy.load(options.policy).eval()
    trajectories = played(policy, config, options.episodes, options.memory)
    layouts = [name for name in LAYOUTS if name != "official" or options.memory == "mem1"]
    found = {name: told(*gaps(policy, trajectories, name, options.memory, settings)) for name in layouts}
    print("| layout | mean | p99 | max | ratios outside the clip range | forward tokens |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, one in found.items():
        cells = " | ".join(f"{one[key]:.2g}" for key in ("mean_nats", "p99_nats", "max_nats"))
        print(f"| {name} | {cells} | {one['outside_clip']:.1%} | {one['forward_tokens']:,} |")
    shown = list(found["tree"]["by_turn"])
    print(f"\n| mean gap of turn | {' | '.join(shown)} |\n|{' --- |' * (len(shown) + 1)}")
    for name, one in found.items():
        print(f"| {name} | {' | '.join(format(one['by_turn'][turn]['mean_nats'], '.2g') for turn in shown)} |")
    about = {"policy": options.policy, "memory": options.memory, "episodes": len(trajectories)}
    turns = sum(len(t.turns) for t in trajectories)
    return finish({**about, "turns": turns, "layouts": found}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
