"""What an rl_step costs by its group size, and an episode by the budget of its context.

    OMP_NUM_THREADS=1 python benchmarks/group_and_budget.py --output benchmarks/group_and_budget.json

Episodes are those of `horizon.py`: every turn and every reply is as long as allowed. Milliseconds are of the processor.

- Group size: episodes of one prompt against as many of prompts that differ from their first word on. The engine runs
  a prompt that is shared once. A training pass is measured in the layouts `tree`, which shares the prompt too, and
  `rows`, which does not, both cut into rows of at most 4,096 tokens. Memory is by how much resident memory grows at
  most while the work runs; the engine's pool of keys and values is counted by its size.
- Budget: `compaction` by its budget and `window` by its turns, both against the full history, 16 turns.

Arms take turns in one process; figures are medians over `--repeats`.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Cost, Ratios, arguments, cost_of, finish, integers
from horizon import (
    ACTION,
    INFORMATION,
    PROMPT,
    SETTINGS,
    Endless,
    Told,
    collected,
    milliseconds,
    peak_mib,
    peak_tokens,
    task,
    token_mib,
    trained,
)

from lightning_mem1.context.memory import MemoryMode
from lightning_mem1.context.modes.compaction import Compaction
from lightning_mem1.context.modes.window import Window
from lightning_mem1.context.settings import memory_mode
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.types import Trajectory

GROUP_PROMPT, GROUP_TURNS = 500, 4
TURNS = 16  # of an episode under a budget
LAYOUTS = ("tree", "rows")
TOLERANCE = 0.2


def played(policy: Policy, size: int, shared: bool) -> tuple[list[Trajectory], int]:
    """Episodes of one prompt, or of one each; the tokens that went through the model."""
    longest = GROUP_PROMPT + 2 * (ACTION + INFORMATION + 50)
    engine = Endless(policy, EngineSettings(num_slots=size, max_context_tokens=longest))
    tasks = [task(GROUP_TURNS, GROUP_PROMPT, 0 if shared else number) for number in range(size)]
    episodes = [Episode(each, Told(), number, number) for number, each in enumerate(tasks)]
    return collect(episodes, engine, policy.tokenizer, SETTINGS, "mem1"), engine.num_run


def of_group(policy: Policy, size: int, repeats: int) -> dict[str, Any]:
    """Rollout and training pass of a group of this size, for the group as a whole."""
    rollouts: dict[str, list[Cost[Any]]] = {"shared": [], "apart": []}
    passes: dict[str, list[Cost[int]]] = {layout: [] for layout in LAYOUTS}
    for _ in range(repeats):
        for name in rollouts:
            rollouts[name].append(cost_of(partial(played, policy, size, name == "shared")))
        group = rollouts["shared"][-1].value[0]
        for layout in LAYOUTS:
            passes[layout].append(cost_of(partial(trained, policy, group, "mem1", layout)))
    pool = size * (GROUP_PROMPT + 2 * (ACTION + INFORMATION + 50)) * token_mib(policy)
    return {
        "group": size,
        "pool_mib": round(pool, 1),
        "rollout": {
            name: {"tokens": costs[-1].value[1], "ms": milliseconds(costs), "peak_mib": peak_mib(costs)}
            for name, costs in rollouts.items()
        },
        "training": {
            layout: {"tokens": costs[-1].value, "ms": milliseconds(costs), "peak_mib": peak_mib(costs)}
            for layout, costs in passes.items()
        },
    }


def of_budgets(policy: Policy, modes: Sequence[MemoryMode], episodes: int, repeats: int) -> list[dict[str, Any]]:
    """Memory modes at one horizon, per episode."""
    longest = PROMPT + TURNS * (ACTION + INFORMATION + 50)
    collecting: list[list[Cost[list[Trajectory]]]] = [[] for _ in modes]
    training: list[list[Cost[int]]] = [[] for _ in modes]
    for _ in range(repeats):
        for mode, plays, passes in zip(modes, collecting, training, strict=True):
            plays.append(cost_of(partial(collected, policy, TURNS, mode, episodes, longest)))
            passes.append(cost_of(partial(trained, policy, plays[-1].value[:1], mode)))
    found = []
    for mode, plays, passes in zip(modes, collecting, training, strict=True):
        peak = peak_tokens(plays[-1].value, mode)
        found.append(
            {
                "mode": str(mode).split()[0],
                "limit": getattr(mode, "budget", getattr(mode, "window", None)),
                "peak_context_tokens": peak,
                "keys_and_values_mib": round(peak * token_mib(policy), 2),
                "mean_turns": statistics.fmean(len(each.turns) for each in plays[-1].value),
                "trained_tokens": passes[-1].value,
                "collect_ms": milliseconds(plays, episodes),
                "train_ms": milliseconds(passes),
                "train_peak_mib": peak_mib(passes),
            }
        )
    return found


def ratios(found: dict[str, Any]) -> Ratios:
    """One prompt beside many, `tree` beside `rows`, a budget beside none."""
    lower = {}
    for each in found["groups"]:
        rollout, training = each["rollout"], each["training"]
        for name in ("tokens", "ms"):
            lower[f"group of {each['group']}: {name} of a rollout, one prompt to many"] = (
                rollout["shared"][name] / rollout["apart"][name]
            )
            lower[f"group of {each['group']}: {name} of a pass, tree to rows"] = (
                training["tree"][name] / training["rows"][name]
            )
    full = next(each for each in found["budgets"] if each["mode"] == "full")
    for each in found["budgets"]:
        for name in ("peak_context_tokens", "collect_ms", "train_ms"):
            if each is not full:
                lower[f"{each['mode']} {each['limit']}: {name} to that of full"] = each[name] / full[name]
    return Ratios(lower=lower)


def main() -> int:
    """Measure, print tables, write, check."""
    parser = arguments("Cost by group size and by the budget of a context.")
    parser.add_argument("--policy", default="bundled")
    parser.add_argument("--groups", type=integers, default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--budgets", type=integers, default=[512, 1024, 2048])
    parser.add_argument("--windows", type=integers, default=[1, 2, 4, 8])
    parser.add_argument("--episodes", type=int, default=2, help="collected at once under a budget")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    policy = Policy.load(options.policy, lora=LoraSettings(target_modules="all-linear"))
    of_group(policy, 2, 1)  # warms up
    groups = []
    print("| group | arm | tokens | ms | MiB |\n| --- | --- | --- | --- | --- |")
    for size in options.groups:
        groups.append(of_group(policy, size, options.repeats))
        for arm, cost in {**groups[-1]["rollout"], **groups[-1]["training"]}.items():
            print(f"| {size} | {arm} | {cost['tokens']} | {cost['ms']} | {cost['peak_mib']} |", flush=True)
    modes = [Compaction(each) for each in options.budgets] + [Window(each) for each in options.windows]
    budgets = of_budgets(policy, [*modes, memory_mode("full")], options.episodes, options.repeats)
    print(f"| {' | '.join(budgets[0])} |\n|{' --- |' * len(budgets[0])}")
    for each in budgets:
        print(f"| {' | '.join(map(str, each.values()))} |")
    shape = {"prompt": GROUP_PROMPT, "group_turns": GROUP_TURNS, "turns": TURNS, "episodes": options.episodes}
    about = {"policy": options.policy, **shape, "repeats": options.repeats}
    return finish({**about, "groups": groups, "budgets": budgets}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
