"""What it costs to play agents through the gateway, against this package's own loop with the same engine.

    OMP_NUM_THREADS=1 python benchmarks/gateway.py --output benchmarks/gateway.json

The bundled policy on the same tasks, in pairs: the loop of this package in memory mode `mem1`, and an agent that keeps
the same context by itself and calls the policy through OpenAI's client on loopback. No turn is ended by what it says,
so both sample the same number of tokens in the same number of turns. Pairs alternate which comes first.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish

from lightning_mem1.context.contexts import Contexts
from lightning_mem1.context.tags import Tags
from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.gateway.agent import AgentEnv, AgentSettings
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import StepResult, StopReason, Task, Trajectory

TOLERANCE = 0.15  # of the ratio
TURNS, TOKENS = 6, 40  # of an episode, of a turn
NEVER = Tags("state0", "action0", "reply0")  # no turn says these
PROMPT = "Which company employs the mayor of the town where Odo Lin lives, and in which year did it open?"
REPLY = "Odo Lin is a baker. Odo Lin lives in Trier. The mayor of Trier is Ada Sol. Ada Sol works for Brook and Sons."


class Replies:
    """Replies the same words until the turns are over."""

    def __init__(self) -> None:
        self.turns = 0

    def observe(self) -> str:
        return ""

    def step(self, action: str) -> StepResult:
        self.turns += 1
        return StepResult(REPLY, reward=1.0, done=self.turns == TURNS)


async def agent(task: Task, client: Any) -> float:
    """Keeps the question, its last turn and the last reply, in the words of the native loop."""
    question = f"<|im_start|>user\n{PROMPT}\n{TURNS} turns left<|im_end|>\n<|im_start|>assistant\n"
    problem, kept = "expected exactly one <action0>...</action0>, got 0", ""
    for left in reversed(range(TURNS)):
        answer = await client.completions.create(model="policy", prompt=question + kept)
        kept = f"{answer.choices[0].text}<reply0>{left} turns left\n{problem}\n{REPLY}</reply0>"
    return 1.0


def measured(native: bool, engine: LocalEngine, count: int, seed: int) -> dict[str, float]:
    """Play some episodes; what they took, in seconds of the clock and of all cores, and how many failed."""
    tasks = [Task(f"{number}", PROMPT, (), TURNS) for number in range(count)]
    envs = [Replies() if native else AgentEnv(agent, AgentSettings()) for _ in tasks]
    episodes = [Episode(t, e, n, seed + n) for n, (t, e) in enumerate(zip(tasks, envs, strict=True))]
    settings = RolloutSettings(tags=NEVER, prompt="brief", max_new_tokens=TOKENS)
    begun, cpu = time.perf_counter(), time.process_time()
    with torch.no_grad():
        memory = "mem1" if native else "recorded"
        played = collect(episodes, engine, engine.policy.tokenizer, settings, memory)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    return {
        "episodes_per_s": count / seconds,
        "cpu_seconds": cpu,
        "turns": float(sum(len(t.turns) for t in played)),
        "tokens": float(sum(len(turn.action_ids) for t in played for turn in t.turns)),
        "context_tokens": float(sum(sum(Contexts(memory).lengths(t)) for t in played)),
        "failed": float(sum(_failed(t) for t in played)),
    }


def _failed(trajectory: Trajectory) -> bool:
    return trajectory.stop_reason == StopReason.ERROR


def ratios(found: dict[str, Any]) -> Ratios:
    """Episodes per second through the gateway to those of the loop."""
    return Ratios(higher={f"{found['agents']} agents": found["episodes_per_s_ratio"]})


def main() -> int:
    """Measure pairs, print the ratio, check."""
    parser = arguments("Episodes a second through the gateway, against the loop of this package.")
    parser.add_argument("--agents", type=int, default=64, help="Episodes at once.")
    parser.add_argument("--pairs", type=int, default=7, help="Measured pairs, after one that is not counted.")
    given = parser.parse_args()
    policy = Policy.load("bundled", lora=LoraSettings()).eval()
    engine = LocalEngine(policy, EngineSettings(num_slots=given.agents, max_context_tokens=1024))
    pairs = []
    for number in range(given.pairs + 1):
        order = (True, False) if number % 2 else (False, True)
        both = {native: measured(native, engine, given.agents, 1000 * number) for native in order}
        if number:
            pairs.append({"native": both[True], "gateway": both[False]})
            print(f"pair {number}: native {both[True]}, gateway {both[False]}", flush=True)
    speeds = [pair["gateway"]["episodes_per_s"] / pair["native"]["episodes_per_s"] for pair in pairs]
    cpu = [pair["gateway"]["cpu_seconds"] / pair["native"]["cpu_seconds"] for pair in pairs]
    figures = {
        "agents": given.agents,
        "episodes_per_s_ratio": statistics.median(speeds),
        "cpu_seconds_ratio": statistics.median(cpu),
        "failed_gateway_episodes": sum(pair["gateway"]["failed"] for pair in pairs),
        "pairs": pairs,
    }
    print(", ".join(f"{key} {value}" for key, value in figures.items() if key != "pairs"))
    return finish(figures, ratios, given, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
