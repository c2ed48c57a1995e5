"""What the scripted shoppers score on every split.

python benchmarks/webshop_scores.py                          # the generated shop
python benchmarks/webshop_scores.py --catalogue FOLDER       # official files
python benchmarks/webshop_scores.py --catalogue FOLDER --strict --nouns FILE
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish

from lightning_mem1.environments.webshop.baselines import Play, oracle, rule_baseline
from lightning_mem1.environments.webshop.tasks import ShopTasks
from lightning_mem1.types import Split

TOLERANCE = 0.01


def scores(source: ShopTasks, split: Split) -> dict[str, Any]:
    """Play every goal of a split."""
    tasks = [source.task(split, index) for index in range(source.size(split))]
    products = {source.shop.goals[task.data["goal"]].asin for task in tasks}
    result: dict[str, Any] = {"goals": len(tasks), "products": len(products)}
    shoppers: dict[str, Callable[..., Play]] = {"rule": rule_baseline, "oracle": oracle}
    for name, shopper in shoppers.items():
        games = [shopper(source.env(task), source.max_turns) for task in tasks]
        result[name] = {
            "reward": round(sum(game.reward for game in games) / max(len(games), 1), 4),
            "success": round(sum(game.success for game in games) / max(len(games), 1), 4),
        }
    best = [source.reachable(task) for task in tasks]
    result["reachable"] = {
        "reward": round(sum(best) / max(len(best), 1), 4),
        "success": round(sum(value == 1.0 for value in best) / max(len(best), 1), 4),
    }
    return result


def ratios(found: dict[str, Any]) -> Ratios:
    """What each shopper earns of what can be earned."""
    splits = {name: one for name, one in found.items() if "/" in name and one["reachable"]["reward"]}
    return Ratios(
        higher={
            f"{name}, {shopper} to reachable": one[shopper]["reward"] / one["reachable"]["reward"]
            for name, one in splits.items()
            for shopper in ("rule", "oracle")
        }
    )


def main() -> int:
    """Play and print a table, write, check."""
    parser = arguments("Score the scripted shoppers.")
    parser.add_argument("--catalogue")
    parser.add_argument("--nouns", default="auto")
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--human-goals", action="store_true")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    print("| split | goals | products | rule reward / success | oracle reward / success | reachable reward / success |")
    print("| --- | --- | --- | --- | --- | --- |")
    for rule in ("canonical", "by_product"):
        source = ShopTasks(
            options.catalogue,
            split_rule=rule,
            strict=options.strict,
            human_goals=options.human_goals,
            nouns=options.nouns,
        )
        for split in reversed(get_args(Split)):
            one = found[f"{rule}/{split}"] = scores(source, split)
            cells = " | ".join(
                f"{one[k]['reward']:.3f} / {one[k]['success']:.3f}" for k in ("rule", "oracle", "reachable")
            )
            print(f"| {rule} {split} | {one['goals']:,} | {one['products']} | {cells} |", flush=True)
    return finish(found, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
