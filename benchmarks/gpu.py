"""What one GPU makes of models of real size: training against its matrix rate, decoding against its memory's.

    python benchmarks/gpu.py --output benchmarks/gpu.json --folder FOLDER
    python benchmarks/gpu.py --shapes 7B --sections train,decode --folder FOLDER
    python benchmarks/gpu.py --sections capture,compile,lora --bases none --output FILE --folder FOLDER
    python benchmarks/gpu.py --shapes tiny --sections capture,compile,lora --bases none --folder FOLDER    (on a CPU)

The models have the shapes of Qwen2.5 and random weights, which are made in the folder; speed does not depend on what a
policy has learnt. Ceilings are measured first, on the same card: a large matrix product, and a large copy.

- train: a pass over trees of about 8,192 tokens (log-probabilities, the gradient of every LoRA weight). MFU counts what
  has to be computed (forward, and backward to activations: the base is frozen), nothing that is computed again.
- layouts: `tree`, `rows` and the dense mask, as in layout_speed.py.
- decode: steps of 64 running turns. The bound is the time in which the weights and the turns' keys and values, each
  read once, come out of memory at the rate of the copy.
- play: whole episodes (prefill included), with how far the engine's log-probabilities are from those of training.
- profile: kernels of a training pass by their share of its time.
- capture, compile, lora: arms in turn, see gpu_pairs.py; not among the sections that run unless named. With all
  shapes about 7 minutes: 7B 150 s, 1.5B and 0.5B 130 s each (expected, not measured). compile leaves 7B out.

What is found is written after every arm, so that a run that is cut has its figures.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

import gpu_pairs
from baseline import GIB, Ratios, arguments, finish, some_of, surroundings
from horizon import ACTION, Endless, Told
from layout_speed import clock, made
from layout_speed import measured as layouts_measured

from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.loading import BUNDLED, load_tokenizer
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.types import GenerationRequest, Task, Trajectory

SHAPES = {  # of Qwen2.5 (arXiv 2412.15115); "tiny" is for trying the script out
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    "0.5B": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
    "7B": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
}
KEY_HEADS = {"7B": 4}  # 2 otherwise
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # on a CPU the script can only be tried out
GPU = DEVICE.type == "cuda"
VOCABULARY = 151936 if GPU else 4096
STEPS = {  # kind of decode step -> engine.compile, engine.merge_lora
    "plain": ("", False), "captured": ("cudagraphs", False), "merged": ("cudagraphs", True),
    "fused": ("inductor", True),
}  # fmt: skip
ATTENTION = ("segments", "flex", "varlen")
SECTIONS = ("train", "layouts", "decode", "play", "profile")
PAIRS = ("capture", "compile", "lora")
TREE = 8192 if GPU else 600  # tokens
PROMPT, TURNS = (300, 8) if GPU else (40, 2)
CONTEXT, NEW, SLOTS = (700, 60, 64) if GPU else (40, 8, 4)  # tokens, tokens, turns
TOLERANCE = 0.15


def folder_of(shape: str, parent: Path) -> Path:
    """A model of this shape with random weights, made on the GPU and kept; its tokenizer is the bundled one."""
    folder = parent / shape
    if not (folder / "config.json").is_file():
        from transformers import Qwen2Config, Qwen2ForCausalLM

        config = Qwen2Config(
            **SHAPES[shape],
            num_key_value_heads=KEY_HEADS.get(shape, 2),
            vocab_size=VOCABULARY,
            tie_word_embeddings=shape != "7B",
            max_position_embeddings=32768,
            rope_theta=1e6,
            dtype="bfloat16",
        )
        with DEVICE:
            torch.set_default_dtype(torch.bfloat16)
            model = Qwen2ForCausalLM(config)
            torch.set_default_dtype(torch.float32)
        model.save_pretrained(folder, max_shard_size="20GB")
        load_tokenizer(str(BUNDLED)).save_pretrained(folder)
    return folder


def loaded(folder: Path, quantization: str, **options: Any) -> Policy:
    """A policy on the GPU."""
    gc.collect()
    if GPU:
        torch.cuda.empty_cache()
    policy = Policy.load(str(folder), lora=LoraSettings(), dtype="bfloat16", quantization=quantization, **options)
    return policy.to(DEVICE)


def ceilings() -> dict[str, float]:
    """TFLOP/s of a bf16 product of 8192^3 (random numbers), and GB/s of a copy of 4 GiB, read and written."""
    if not GPU:
        return {"tflops": 1.0, "gb_per_s": 1.0}
    a, b = (torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randn(2 * GIB, device=DEVICE, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    product, copy = seconds(lambda: a @ b), seconds(lambda: target.copy_(source))
    return {"tflops": round(2 * 8192**3 / product / 1e12, 1), "gb_per_s": round(2 * source.nbytes / copy / 1e9)}


def seconds(run: Callable[[], Any], repeats: int = 10) -> float:
    """Median seconds of a call, after three to warm up."""
    found = []
    for _ in range(repeats + 3):
        begun = clock(DEVICE)
        run()
        found.append(clock(DEVICE) - begun)
    return statistics.median(found[3:])


def trees(policy: Policy) -> list[Trajectory]:
    """A group that shares its prompt and fills a tree of about `TREE` tokens."""
    rng, group = random.Random(0), 1
    while collate(made(rng, PROMPT, TURNS, group + 1, 1000), "tree").num_tokens <= TREE:
        group += 1
    return made(random.Random(1), PROMPT, TURNS, group, policy.config.vocab_size)


def flops(policy: Policy, trajectories: list[Trajectory]) -> float:
    """Of a pass, forward and backward, that trains nothing but adapters (whose own share is left out)."""
    batch = collate(trajectories, "tree")
    config, tokens = policy.config, batch.num_tokens
    width = config.hidden_size
    kv_width = width // config.num_attention_heads * config.num_key_value_heads
    layer = 2 * width * width + 2 * width * kv_width + 3 * width * config.intermediate_size
    assert batch.tree is not None
    blocks = batch.tree.blocks
    pairs = sum(
        block.length * (block.length + 1) / 2 + (0 if block.root is None else block.length * blocks[block.root].length)
        for block in blocks
    )
    linear = 2 * tokens * layer * config.num_hidden_layers + 2 * len(batch.action_ids) * width * config.vocab_size
    attention = 4 * pairs * width * config.num_hidden_layers
    return 2 * linear + 3 * attention


def trained(policy: Policy, trajectories: list[Trajectory]) -> None:
    """One pass, gradients included."""
    policy.zero_grad()
    logprobs, _ = policy.logprobs(collate(trajectories, "tree").to(DEVICE))
    logprobs.mean().backward()


def train(policy: Policy, peak: dict[str, float], kernels: list[str]) -> Iterator[dict[str, Any]]:
    """Kernels of attention with activations computed again, and the last one with activations kept."""
    policy.train()
    for attention, again in [*((each, True) for each in kernels), (kernels[-1], False)]:
        policy.tree_kernel = attention
        policy.recompute_activations(again)
        yield {"attention": attention, "checkpointing": again} | tried(_train, policy, peak)


def _train(policy: Policy, peak: dict[str, float]) -> dict[str, Any]:
    trajectories = trees(policy)
    tokens = collate(trajectories, "tree").num_tokens
    torch.cuda.reset_peak_memory_stats()
    taken = seconds(lambda: trained(policy, trajectories), repeats=5)
    return {
        "tokens": tokens,
        "ms": round(1e3 * taken, 1),
        "tokens_per_s": round(tokens / taken),
        "mfu": round(flops(policy, trajectories) / taken / peak["tflops"] / 1e12, 3),
        "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 1),
    }


def tried(arm: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """What an arm found, or why it failed: the others are to be measured all the same."""
    try:
        return arm(*args)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def layouts(policy: Policy, turns: int) -> dict[str, Any]:
    """As layout_speed.py, with groups of four."""
    policy.tree_kernel = "auto"
    return layouts_measured(policy, PROMPT, turns, 4, 5)


def bytes_read(engine: LocalEngine) -> float:
    """Of a decode step at the end of every turn: all weights but the embedding's, and the part of the pool in use."""
    model = engine.policy.causal_lm
    embedding = model.get_input_embeddings().weight
    tied = embedding is model.get_output_embeddings().weight
    weights = sum(p.nbytes for p in model.parameters() if tied or p is not embedding)
    return weights + engine.pool.num_bytes * (CONTEXT + NEW) / engine.max_context_tokens


def decode(policy: Policy, peak: dict[str, float], kinds: list[str]) -> Iterator[dict[str, Any]]:
    """Decode steps of some of the kinds in `STEPS`."""
    policy.eval()
    for compiled, merged in (STEPS[kind] for kind in kinds):
        yield {"compile": compiled, "merge_lora": merged} | tried(_decode, policy, peak, compiled, merged)


def _decode(policy: Policy, peak: dict[str, float], compiled: str, merged: bool) -> dict[str, Any]:
    engine = decoding(policy, compiled, merged)
    steps(engine)  # captures
    fill(engine)
    taken = steps(engine)
    step = statistics.median(taken[NEW // 2 :])
    floor = bytes_read(engine) / peak["gb_per_s"] / 1e9
    fill(engine)
    told = step_kernels(engine)
    return {
        "prefill_tokens_per_s": round(SLOTS * CONTEXT / taken[0]),
        "step_ms": round(1e3 * step, 2),
        "tokens_per_s": round(SLOTS / step),
        "floor_ms": round(1e3 * floor, 2),
        "of_bound": round(floor / step, 3),
        "pool_gib": round(engine.pool.num_bytes / GIB, 2),
        "kernel_ms": told["kernel_ms"],
        "per_cent": dict(list(told["per_cent"].items())[:12]),
    }


def decoding(policy: Policy, compiled: str, merged: bool, **settings: Any) -> LocalEngine:
    """An engine in which every slot has a turn to write."""
    room, prefill = CONTEXT + NEW + 32, SLOTS * CONTEXT
    engine = Endless(policy, EngineSettings(SLOTS, room, prefill, compile=compiled, merge_lora=merged, **settings))
    fill(engine)
    return engine


def fill(engine: LocalEngine) -> None:
    """Give every slot a turn in a context of its own."""
    rng = random.Random(0)
    engine.reset()
    for session in range(SLOTS):
        ids = [rng.randrange(1000) for _ in range(CONTEXT)]
        engine.submit(GenerationRequest(session, ids, NEW, seed=session))


def steps(engine: LocalEngine) -> list[float]:
    """Seconds of every step until nothing is left to do."""
    found = []
    while engine.pending:
        begun = clock(DEVICE)
        engine.step()
        found.append(clock(DEVICE) - begun)
    return found


def play(policy: Policy, compiled: str, merged: bool, episodes: int = SLOTS, turns: int = 3) -> dict[str, Any]:
    """Episodes in memory mode mem1; turns end at their limit, so that every policy plays alike."""
    policy.eval()
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1e-3)  # an adapter that does something
    engine = Endless(policy, EngineSettings(SLOTS, 1024, 32768, compile=compiled, merge_lora=merged))
    task = Task("benchmark/0", " ".join(["find"] * 100), (), turns)
    rollout = RolloutSettings(prompt="brief", max_new_tokens=ACTION, max_information_tokens=150)
    taken = []
    for _ in range(2):  # the first round captures
        begun = clock(policy.device)
        found = collect([Episode(task, Told(), 0, i) for i in range(episodes)], engine, policy.tokenizer, rollout)
        taken.append(clock(policy.device) - begun)
    sampled = sum(len(turn.action_ids) for each in found for turn in each.turns)
    gaps = []
    with torch.no_grad():
        for each in found[:4]:
            scored, _ = policy.logprobs(collate([each], "tree").to(DEVICE))
            then = torch.tensor([p for turn in each.turns for p in turn.action_logprobs], device=DEVICE)
            gaps.append((scored - then).abs())
    gap = torch.cat(gaps)
    return {
        "episodes": episodes,
        "tokens_per_s": round(sampled / taken[-1]),
        "gap_mean": float(gap.mean()),
        "gap_max": float(gap.max()),
    }


def profile(policy: Policy) -> dict[str, Any]:
    """The kernels that take most, in per cent of all kernels' time: of a training pass, and of decode steps."""
    policy.train()
    trajectories = trees(policy)
    for _ in range(2):
        trained(policy, trajectories)
    told = {"train": kernels_of(lambda: trained(policy, trajectories))}
    return told | {"decode": step_kernels(decoding(policy.eval(), "cudagraphs", True))}


def step_kernels(engine: LocalEngine) -> dict[str, Any]:
    """Of a decode step in the middle of the turns that an engine was filled with."""
    for _ in range(NEW // 2):
        engine.step()
    return kernels_of(engine.step)


def kernels_of(run: Callable[[], Any]) -> dict[str, Any]:
    """Milliseconds by the clock and in kernels, and the share of the largest kernels."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiling

    with profiling(activities=[ProfilerActivity.CUDA]) as record:
        begun = clock(DEVICE)
        run()
        taken = clock(DEVICE) - begun
    times: Counter[str] = Counter()
    for each in record.key_averages():
        times[each.key[:90]] += each.self_device_time_total
    shares = {name: round(100 * time / times.total(), 1) for name, time in times.most_common(25)}
    return {"ms": round(1e3 * taken, 1), "kernel_ms": round(times.total() / 1e3, 1), "per_cent": shares}


def pairs(section: str, folder: Path, shape: str) -> Iterator[dict[str, Any]]:
    """Arms in turn of one of `PAIRS`, with torch's kernels, which torch.compile sees through."""

    def load(**options: Any) -> Policy:
        return loaded(folder, "none", kernels="torch", **options)

    if section == "capture":
        yield from gpu_pairs.capture(load, decoding, fill)
        return
    if section == "compile" and shape == "7B":  # is not held up by launches
        return
    group = trees(load())
    if section == "compile":
        yield from gpu_pairs.compiled(load, trained, group)
    else:
        yield from gpu_pairs.lora(load, trained, group, decoding, fill)


def tried_each(arms: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What arms find one after the other; why the rest is missing, where one fails."""
    try:
        yield from arms
    except Exception as error:
        yield {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def ratios(found: dict[str, Any]) -> Ratios:
    """MFU and the share of the bandwidth bound, of every arm that ran."""
    higher = {}
    for kind, name in (("train", "mfu"), ("decode", "of_bound")):
        for each in found["runs"].get(kind, []):
            if name in each:
                arm = [str(v) for k, v in each.items() if k in ("shape", "base", "kernels", "attention", "compile")]
                arm += [k for k in ("checkpointing", "merge_lora") if each.get(k)]
                higher[f"{kind} {', '.join(filter(None, arm))}"] = each[name]
    lower = {
        f"{each['arm']}, {each['shape']}, {name}": ratio
        for kind in PAIRS
        for each in found["runs"].get(kind, [])
        for name, ratio in each.get("of_first", {}).items()
    }
    return Ratios(higher=higher, lower=lower)


def main() -> int:
    """Measure, print one line of JSON for each arm, write, check."""
    parser = arguments("What one GPU makes of models of real size.")
    parser.add_argument("--folder", required=True, help="where models are made, 16 GB for 7B")
    parser.add_argument("--shapes", type=some_of(SHAPES), default="0.5B,1.5B,7B")
    parser.add_argument("--sections", type=some_of(SECTIONS + PAIRS), default=",".join(SECTIONS))
    parser.add_argument("--bases", type=some_of(("none", "nf4")), default="none,nf4")
    parser.add_argument(
        "--attention",
        type=some_of(ATTENTION),
        default=",".join(ATTENTION),
        help="kernels of training, the fastest last",
    )
    parser.add_argument(
        "--kernels", choices=("liger", "torch"), default="liger" if GPU else "torch", help="of norms and MLPs"
    )
    parser.add_argument(
        "--steps",
        type=some_of(STEPS),
        default=",".join(STEPS),
        help="kinds of decode step; in 4 bits captured ones alone",
    )
    options = parser.parse_args()
    found: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name() if GPU else "none",
        "torch": torch.__version__,
        "ceilings": ceilings(),
    }
    print(json.dumps(found), flush=True)
    runs: dict[str, list[dict[str, Any]]] = {section: [] for section in options.sections}
    begun = time.perf_counter()

    def keep(section: str, told: dict[str, Any]) -> None:
        runs[section].append(told)
        print(f"{time.perf_counter() - begun:.0f} s, {section}: {json.dumps(told)}", flush=True)
        if options.output and not options.check:  # a check may read the same file in the end
            Path(options.output).write_text(json.dumps({**surroundings(), **found, "runs": runs}, indent=1) + "\n")

    for shape in options.shapes:
        folder = folder_of(shape, Path(options.folder))
        print(f"{time.perf_counter() - begun:.0f} s, {shape} is made", flush=True)
        for section in [each for each in PAIRS if each in runs]:
            for told in tried_each(pairs(section, folder, shape)):
                keep(section, {"shape": shape} | told)
        for base in options.bases if set(runs) & set(SECTIONS) else ():
            arm = {"shape": shape, "base": base, "kernels": options.kernels}
            policy = loaded(folder, base, kernels=options.kernels, gradient_checkpointing=True)
            if "train" in runs:
                attention = options.attention if base == "none" else options.attention[-1:]
                for told in train(policy, found["ceilings"], attention):
                    keep("train", arm | told)
            if "decode" in runs:
                kinds = options.steps if base == "none" else ["captured"]
                for told in decode(policy, found["ceilings"], kinds):
                    keep("decode", arm | told)
            if base == "none" and "layouts" in runs and shape != "7B":
                for turns in (8, 16):
                    keep("layouts", arm | tried(layouts, policy, turns))
            if base == "none" and "play" in runs:
                for compiled, merged in (("cudagraphs", False), ("cudagraphs", True)):
                    told = {"compile": compiled, "merge_lora": merged}
                    keep("play", arm | told | tried(play, policy, compiled, merged))
            if base == "none" and "profile" in runs and shape == "7B":
                keep("profile", arm | tried(profile, policy))
            del policy
    return finish({**found, "runs": runs}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
