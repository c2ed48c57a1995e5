"""Time and memory of an episode as its horizon grows: the constant context beside the full history.

    OMP_NUM_THREADS=1 python benchmarks/horizon.py --output benchmarks/horizon.json

Episodes have a prompt of about 100 tokens, turns of 60 and replies of about 150, whatever the policy writes: the stop
strings are switched off. Collecting and one training pass (log-probabilities and the gradient of every LoRA weight,
layout `tree`) are measured apart, memory modes by turns, in milliseconds of the processor per episode. Memory is what
the keys and values of one running episode take at its longest context, and by how much resident memory grows at most
during the pass, with activations kept and recomputed (gradient checkpointing). The full history is measured to
`--full_turns` (twice the turns take four times the time), kept activations to `--kept_turns`.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Cost, Ratios, arguments, cost_of, finish, integers

from lightning_mem1.context.contexts import contexts
from lightning_mem1.context.settings import MemorySetting
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.training.layouts.microbatches import split_by_tokens
from lightning_mem1.types import GenerationRequest, StepResult, Task, Trajectory

MODES = ("mem1", "full")
EPISODES, ACTION, INFORMATION, PROMPT = 4, 60, 150, 100
ROW = 4096  # most tokens of a training row; a longer trajectory is a row of its own
SHORT = 16  # turns; longer episodes are measured once, whatever `--repeats` says
SETTINGS = RolloutSettings(prompt="brief", max_new_tokens=ACTION, max_information_tokens=INFORMATION)
TOLERANCE = 0.2


class Told:
    """An environment that replies with the same number of words to anything."""

    def observe(self) -> str:
        """The first page."""
        return ""

    def step(self, action: str) -> StepResult:
        """Another page."""
        return StepResult(" ".join(["copper"] * (INFORMATION - 5)), 0.0, False)

    def close(self) -> None:
        """Nothing to close."""


class Endless(LocalEngine):
    """The local engine, writing every turn to its limit."""

    def __init__(self, policy: Policy, settings: EngineSettings) -> None:
        super().__init__(policy, settings)
        self._stop.end_ids = frozenset()

    def submit(self, request: GenerationRequest) -> None:
        """Queue one turn without stop strings."""
        super().submit(replace(request, stop=()))


def collected(policy: Policy, turns: int, mode: MemorySetting, episodes: int, longest: int) -> list[Trajectory]:
    """Episodes of `turns` turns, in contexts of at most `longest` tokens."""
    engine = Endless(policy, EngineSettings(num_slots=episodes, max_context_tokens=longest))
    return collect(
        [Episode(task(turns), Told(), 0, seed) for seed in range(episodes)], engine, policy.tokenizer, SETTINGS, mode
    )


def task(turns: int, prompt: int = PROMPT, number: int = 0) -> Task:
    """A task whose prompt has about `prompt` tokens; with another number it begins otherwise."""
    words = [str(number) if number else "find", *["find"] * (prompt - 11)]
    return Task(f"benchmark/{number}", " ".join(words), (), turns)


def trained(policy: Policy, trajectories: Sequence[Trajectory], mode: MemorySetting, layout: str = "tree") -> int:
    """One pass over all trajectories; the tokens it took."""
    policy.zero_grad()
    tokens = 0
    for part in split_by_tokens(trajectories, ROW, layout, mode):
        batch = collate([trajectories[i] for i in part], layout, mode)
        policy.logprobs(batch)[0].mean().backward()
        tokens += batch.num_tokens
    return tokens


def peak_tokens(trajectories: Sequence[Trajectory], mode: MemorySetting) -> int:
    """The longest context with the turn written in it."""
    return max(
        len(context) + len(turn.action_ids)
        for each in trajectories
        for context, turn in zip(contexts(each, mode), each.turns, strict=True)
    )


def token_mib(policy: Policy) -> float:
    """What the keys and values of a token take."""
    config = policy.config
    width = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
    return 2 * config.num_hidden_layers * width * 4 / 2**20


def measured(policy: Policy, turns: int, modes: Sequence[str], kept: bool, repeats: int) -> dict[str, Any]:
    """The memory modes at one horizon, per episode; training with activations kept, where asked for, and recomputed."""
    costs: dict[str, dict[str, list[Cost[Any]]]] = {mode: {} for mode in modes}
    found: dict[str, Any] = {"turns": turns}
    for _ in range(repeats):
        for mode in modes:
            longest = PROMPT + (turns if mode == "full" else 2) * (ACTION + INFORMATION + 50)
            playing = cost_of(partial(collected, policy, turns, mode, EPISODES, longest))
            costs[mode].setdefault("collect", []).append(playing)
            for name, again in [("train", False)] * kept + [("recomputed", True)]:
                policy.recompute_activations(again)
                training = cost_of(partial(trained, policy, playing.value[:1], mode))
                costs[mode].setdefault(name, []).append(training)
            peak = peak_tokens(playing.value, mode)
            found[mode] = {
                "peak_context_tokens": peak,
                "keys_and_values_mib": round(peak * token_mib(policy), 2),
                "trained_tokens": training.value,
            }
    for mode in modes:
        found[mode]["collect_ms"] = milliseconds(costs[mode].pop("collect"), EPISODES)
        for name, each in costs[mode].items():
            found[mode] |= {f"{name}_ms": milliseconds(each), f"{name}_peak_mib": peak_mib(each)}
    return found


def milliseconds(costs: Sequence[Cost[Any]], episodes: int = 1) -> float:
    """Of the processor, per episode; the median."""
    return round(1e3 * statistics.median(each.cpu_s for each in costs) / episodes, 1)


def peak_mib(costs: Sequence[Cost[Any]]) -> float:
    """By how much memory grew; the median."""
    return round(statistics.median(each.peak_mib for each in costs), 1)


def ratios(found: dict[str, Any]) -> Ratios:
    """Constant context beside full history at every horizon, and its time per turn beside that at the shortest one."""
    horizons = found["horizons"]
    first = horizons[0]
    names = {"peak_context_tokens": "longest context", "collect_ms": "collecting", "recomputed_ms": "training"}
    beside = {
        f"{each['turns']} turns: {told}, mem1 to full": each["mem1"][name] / each["full"][name]
        for each in horizons
        if "full" in each
        for name, told in names.items()
    }
    growth = {
        f"{each['turns']} turns: {names[name]} a turn to that at {first['turns']}": each["mem1"][name]
        / each["turns"]
        / (first["mem1"][name] / first["turns"])
        for each in horizons[1:]
        for name in ("collect_ms", "recomputed_ms")
    }
    return Ratios(lower={**beside, **growth})


def main() -> int:
    """Measure, print a table, write, check."""
    parser = arguments("Time and memory of an episode by its horizon.")
    parser.add_argument("--policy", default="bundled")
    parser.add_argument("--turns", type=integers, default=[2, 4, 8, 16, 32, 64, 128, 256])
    parser.add_argument("--full_turns", type=int, default=128, help="most turns of the full history")
    parser.add_argument("--kept_turns", type=int, default=64, help="most turns of a pass that keeps its activations")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    policy = Policy.load(options.policy, lora=LoraSettings(target_modules="all-linear"))
    found = []
    keys = {
        "peak_context_tokens": "tokens",
        "keys_and_values_mib": "KV MiB",
        "collect_ms": "collect ms",
        "train_ms": "train ms",
        "train_peak_mib": "train MiB",
        "recomputed_ms": "recomputed ms",
        "recomputed_peak_mib": "recomputed MiB",
    }
    heads = [f"{mode} {name}" for name in keys.values() for mode in MODES]
    print(f"| turns | {' | '.join(heads)} |\n|{' --- |' * (len(heads) + 1)}")
    for turns in options.turns:
        modes = MODES if turns <= options.full_turns else MODES[:1]
        repeats = options.repeats if turns <= SHORT else 1
        one = measured(policy, turns, modes, turns <= options.kept_turns, repeats)
        cells = [str(one.get(mode, {}).get(key, "")) for key in keys for mode in MODES]
        print(f"| {turns} | {' | '.join(cells)} |", flush=True)
        found.append(one)
    return finish({"episodes": EPISODES, "policy": options.policy, "horizons": found}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
