"""How many turns of a pretrained chat model are valid before any training, by what it is shown and given.

    python benchmarks/valid_turns.py --policy SmolLM2-135M-Instruct.Q4_1.gguf --output benchmarks/valid_turns.json

Two questions from the generated encyclopedia in memory mode `mem1`, `prompt: full`, episodes of two turns. A turn is
valid when it holds exactly one action that can be read, exact when it holds one internal state, that action and nothing
else. The policy is a folder, a hub id or a GGUF file (with the package gguf).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish

from lightning_mem1.context.prompts import FULL_INSTRUCTIONS
from lightning_mem1.context.tags import QA_TAGS, exact_format, parse_turn
from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.environments.qa.tasks import EncyclopediaTasks
from lightning_mem1.policy.policy import Policy
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings

TURNS = 2  # of an episode
TOLERANCE = 0.25
SHOWN = {"internal_state": QA_TAGS.internal_state, "information": QA_TAGS.information, "action": QA_TAGS.shape}
ARMS: dict[str, dict[str, Any]] = {
    "tags, explained": {"format": "qa", "instructions": FULL_INSTRUCTIONS.format(**SHOWN)},
    "tags, worked turn": {"format": "qa"},
    "tags, worked turn, begin_with_state": {"format": "qa", "begin_with_state": True},
    "hermes": {"format": "qa_hermes"},
    "hermes, begin_with_state": {"format": "qa_hermes", "begin_with_state": True},
    "llama, begin_with_state": {"format": "qa_llama", "begin_with_state": True},
}


def loaded(source: str) -> Policy:
    """A policy; the weights of a GGUF file are dequantised."""
    if not source.endswith(".gguf"):
        return Policy.load(source, dtype="float32").eval()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = Path(source)
    where: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False}
    model = AutoModelForCausalLM.from_pretrained(str(file.parent), **where, dtype=torch.float32)
    model.hf_quantizer = None
    del model.config.quantization_config
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(str(file.parent), **where).save_pretrained(folder)
        return Policy.load(folder, dtype="float32").eval()


def measured(policy: Policy, settings: RolloutSettings, num_turns: int, show: bool) -> dict[str, Any]:
    """Shares of the turns of so many episodes."""
    source = EncyclopediaTasks(seed=0, objectives=2)
    tasks = [replace(source.task("val", number), max_turns=TURNS) for number in range(num_turns // TURNS)]
    episodes = [Episode(task, source.env(task), number, seed=number) for number, task in enumerate(tasks)]
    engine = LocalEngine(policy, EngineSettings(num_slots=len(tasks), max_context_tokens=2048))
    begun = time.perf_counter()
    with torch.no_grad():
        played = collect(episodes, engine, policy.tokenizer, settings)
    turns = [turn for trajectory in played for turn in trajectory.turns]
    decode = settings.encoder(policy.tokenizer).decode
    texts = [decode(turn.ids) for turn in turns]
    actions = [parse_turn(text, settings.tags).action for text in texts]
    if show:
        print(*(f"--- {action}\n{text}" for action, text in zip(actions, texts, strict=True)), sep="\n", flush=True)
    return {
        "turns": len(turns),
        "valid": sum(action is not None for action in actions) / len(turns),
        "exact": sum(exact_format(text, settings.tags) for text in texts) / len(turns),
        "seconds": round(time.perf_counter() - begun, 1),
    }


def ratios(found: dict[str, Any]) -> Ratios:
    """The shares themselves, those that are not 0."""
    shares = {f"{arm}, {how}": each[how]["valid"] for arm, each in found["arms"].items() for how in each}
    return Ratios(higher={name: share for name, share in shares.items() if share})


def main() -> int:
    """Measure, write, check."""
    parser = arguments("Shares of valid turns of a pretrained chat model, before any training.")
    parser.add_argument("--policy", required=True)
    parser.add_argument("--turns", type=int, default=16, help="of each arm")
    parser.add_argument("--max_new_tokens", type=int, default=96)
    parser.add_argument("--show", action="store_true", help="print every turn")
    given = parser.parse_args()
    policy = loaded(given.policy)
    arms: dict[str, Any] = {}
    for name, arm in ARMS.items():
        settings = RolloutSettings(max_new_tokens=given.max_new_tokens, max_information_tokens=384, **arm)
        for how, temperature in (("greedy", 0.0), ("sampled", 1.0)):
            found = measured(policy, replace(settings, temperature=temperature), given.turns, given.show)
            arms.setdefault(name, {})[how] = found
            print(f"{name}, {how}: {json.dumps(found)}", flush=True)
    limits = {"turns": given.turns, "max_new_tokens": given.max_new_tokens}
    return finish({"policy": Path(given.policy).name, **limits, "arms": arms}, ratios, given, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
