"""Time and memory of an episode as its horizon grows: the constant context beside the full history.

    OMP_NUM_THREADS=1 python benchmarks/horizon.py --output benchmarks/horizon.json

Episodes have a prompt of about 100 tokens, turns of 60 and replies of about 150, whatever the policy writes: the stop
strings are switched off. Collecting and one training pass (log-probabilities and the gradient of every LoRA weight,
layout `tree`) are timed apart, memory modes by turns. Memory is what the keys and values of one running episode take at
its longest context, and the tokens of one training row.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish, integers

from lightning_mem1.context.contexts import contexts
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.training.layouts.microbatches import split_by_tokens
from lightning_mem1.types import GenerationRequest, StepResult, Task, Trajectory

MODES = ("mem1", "full")
EPISODES, ACTION, INFORMATION, PROMPT = 16, 60, 150, 100
ROW = 4096  # most tokens of a training row
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

    def submit(self, request: GenerationRequest) -> None:
        """Queue one turn without stop strings."""
        super().submit(replace(request, stop=()))

    def _stops(self, run: Any, token: int) -> bool:
        return False


def collected(policy: Policy, turns: int, mode: str) -> tuple[list[Trajectory], float]:
    """Episodes of `turns` turns, and the seconds that collecting them took."""
    longest = PROMPT + (turns if mode == "full" else 2) * (ACTION + INFORMATION + 50)
    engine = Endless(policy, EngineSettings(num_slots=EPISODES, max_context_tokens=longest))
    task = Task("benchmark/0", " ".join(["find"] * (PROMPT - 10)), (), turns)
    settings = RolloutSettings(prompt="brief", max_new_tokens=ACTION, max_information_tokens=INFORMATION)
    episodes = [Episode(task, Told(), 0, seed) for seed in range(EPISODES)]
    begun = time.perf_counter()
    found = collect(episodes, engine, policy.tokenizer, settings, mode)
    return found, time.perf_counter() - begun


def trained(policy: Policy, trajectories: Sequence[Trajectory], mode: str) -> tuple[float, int]:
    """Seconds of one pass over all trajectories, and the tokens it took."""
    policy.zero_grad()
    begun, tokens = time.perf_counter(), 0
    for part in split_by_tokens(trajectories, ROW, "tree", mode):
        batch = collate([trajectories[i] for i in part], "tree", mode)
        policy.logprobs(batch)[0].mean().backward()
        tokens += batch.num_tokens
    return time.perf_counter() - begun, tokens


def measured(policy: Policy, turns: int, repeats: int) -> dict[str, Any]:
    """Both memory modes at one horizon, per episode."""
    config = policy.config
    width = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
    token_bytes = 2 * config.num_hidden_layers * width * 4
    seconds: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
    told: dict[str, dict[str, Any]] = {}
    for _ in range(repeats):
        for mode in MODES:
            found, collecting = collected(policy, turns, mode)
            training, tokens = trained(policy, found, mode)
            seconds[mode].append((collecting, training))
            peak = max(
                len(c) + len(t.action_ids) for f in found for c, t in zip(contexts(f, mode), f.turns, strict=True)
            )
            told[mode] = {
                "peak_context_tokens": peak,
                "keys_and_values_mib": round(peak * token_bytes / 2**20, 2),
                "trained_tokens": tokens // EPISODES,
            }
    for mode in MODES:
        for place, name in enumerate(("collect_ms", "train_ms")):
            median = statistics.median(each[place] for each in seconds[mode])
            told[mode][name] = round(1e3 * median / EPISODES, 1)
    return {"turns": turns, **told}


def ratios(found: dict[str, Any]) -> Ratios:
    """Constant context beside full history at every horizon, and its time per turn beside that at the shortest one."""
    horizons = found["horizons"]
    first = horizons[0]
    names = {"peak_context_tokens": "longest context", "collect_ms": "collecting", "train_ms": "training"}
    beside = {
        f"{each['turns']} turns: {told}, mem1 to full": each["mem1"][name] / each["full"][name]
        for each in horizons
        for name, told in names.items()
    }
    growth = {
        f"{each['turns']} turns: {names[name]} a turn to that at {first['turns']}": each["mem1"][name]
        / each["turns"]
        / (first["mem1"][name] / first["turns"])
        for each in horizons[1:]
        for name in ("collect_ms", "train_ms")
    }
    return Ratios(lower={**beside, **growth})


def main() -> int:
    """Measure, print a table, write, check."""
    parser = arguments("Time and memory of an episode by its horizon.")
    parser.add_argument("--policy", default="bundled")
    parser.add_argument("--turns", type=integers, default=[2, 4, 8, 16, 32, 64])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    policy = Policy.load(options.policy, lora=LoraSettings(target_modules="all-linear"))
    found = []
    heads = [f"{mode} {name}" for name in ("tokens", "KV MiB", "collect ms", "train ms") for mode in MODES]
    print(f"| turns | {' | '.join(heads)} |\n|{' --- |' * (len(heads) + 1)}")
    for turns in options.turns:
        one = measured(policy, turns, options.repeats)
        keys = ("peak_context_tokens", "keys_and_values_mib", "collect_ms", "train_ms")
        print(f"| {turns} | {' | '.join(str(one[mode][key]) for key in keys for mode in MODES)} |", flush=True)
        found.append(one)
    return finish({"episodes": EPISODES, "policy": options.policy, "horizons": found}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
