"""What it costs to play agents through the gateway, against this package's own loop with the same engine.

    OMP_NUM_THREADS=1 python benchmarks/gateway.py --output benchmarks/gateway.json

The same tasks of the encyclopedia, the bundled policy and the same engine settings, in pairs: the loop of this package
in memory mode `mem1`, and the agent of `environments/qa/note_taker.py`, which keeps the same context by itself and
calls the policy through OpenAI's client on loopback. Each pair alternates which comes first. What is compared is
sampled tokens a second, because the two sample other turns; episodes a second are printed as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.environments.qa.note_taker import play
from lightning_mem1.environments.qa.tasks import EncyclopediaTasks
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.gateway.agent import AgentEnv, AgentSettings
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import StopReason, Trajectory


def measured(native: bool, source: Any, engine: LocalEngine, count: int, seed: int) -> dict[str, float]:
    """Play some episodes; what they took and whether any call was lost."""
    tasks = [source.task("train", index) for index in range(count)]
    envs = [source.env(task) if native else AgentEnv(play, AgentSettings(), source.env(task)) for task in tasks]
    episodes = [Episode(t, e, n, seed + n) for n, (t, e) in enumerate(zip(tasks, envs, strict=True))]
    settings = RolloutSettings(
        format="qa", prompt="brief", temperature=0.6, max_new_tokens=64, max_information_tokens=384
    )
    begun = time.perf_counter()
    with torch.no_grad():
        memory = "mem1" if native else "recorded"
        played = collect(episodes, engine, engine.policy.tokenizer, settings, memory)
    seconds = time.perf_counter() - begun
    return {
        "seconds": seconds,
        "episodes_per_s": count / seconds,
        "tokens_per_s": sum(len(turn.action_ids) for t in played for turn in t.turns) / seconds,
        "turns": float(sum(len(t.turns) for t in played)),
        "errors": float(sum(_failed(t) for t in played)),
        "reward": statistics.fmean(t.reward for t in played),
    }


def _failed(trajectory: Trajectory) -> bool:
    return trajectory.stop_reason == StopReason.ERROR


def main() -> None:
    """Measure pairs and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agents", type=int, default=64, help="Episodes at once.")
    parser.add_argument("--pairs", type=int, default=5, help="Measured pairs, after one that is not counted.")
    parser.add_argument("--output", type=Path, help="JSON file for the figures.")
    given = parser.parse_args()
    policy = Policy.load("bundled", lora=LoraSettings()).eval()
    engine = LocalEngine(policy, EngineSettings(num_slots=given.agents, max_context_tokens=1024))
    source = EncyclopediaTasks(0, 400, [1], objectives=2)
    pairs = []
    for number in range(given.pairs + 1):
        order = (True, False) if number % 2 else (False, True)
        both = {native: measured(native, source, engine, given.agents, 1000 * number) for native in order}
        if number:
            pairs.append({"native": both[True], "gateway": both[False]})
            ratio = both[False]["tokens_per_s"] / both[True]["tokens_per_s"]
            print(f"pair {number}: native {both[True]}, gateway {both[False]}, ratio {ratio:.3f}", flush=True)
    ratios = {
        name: statistics.median(pair["gateway"][name] / pair["native"][name] for pair in pairs)
        for name in ("tokens_per_s", "episodes_per_s")
    }
    lost = sum(pair["gateway"]["errors"] for pair in pairs)
    figures = {"machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores", "ratios": ratios}
    figures |= {"agents": given.agents, "failed_gateway_episodes": lost, "pairs": pairs}
    print(f"median ratio, gateway to native: {ratios}; failed gateway episodes: {lost:g}")
    if given.output:
        given.output.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
