"""Turns of the bundled policy, and what transformers says of them; run by itself, vLLM's engine in this process.

    LIGHTNING_MEM1_VLLM's python tests/vllm_turns.py FOLDER SITE [whole]

FOLDER holds the base, SITE the packages that vLLM's environment lacks (peft). Prints one JSON line per round of turns.
With ``whole`` the rounds are those of full training.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

TEXTS = ["find a red shoe under 40 dollars", "who was born in torham?", "search page\n<search>", "<think>"]
STOP = ("</answer>", "</search>")


def requests(tokenizer: Any, temperature: float, stop: tuple[str, ...] = STOP) -> list[Any]:
    """One request per text."""
    from lightning_mem1.types import GenerationRequest

    prompts = [f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" for text in TEXTS]
    ids = [tokenizer.encode(prompt, add_special_tokens=False) for prompt in prompts]
    return [GenerationRequest(k, each, 32, stop, temperature, seed=k) for k, each in enumerate(ids)]


@torch.no_grad()
def gap(policy: Any, asked: list[Any], done: list[Any]) -> float:
    """Largest difference of a log-prob from the one that transformers computes with its own attention, in nats."""
    worst = 0.0
    policy.causal_lm.set_attn_implementation("eager")
    for request, turn in zip(asked, done, strict=True):
        assert turn.error == "" and turn.ids
        context = list(request.context_ids)
        logits = policy.causal_lm(torch.tensor([context + turn.ids])).logits[0, len(context) - 1 : -1]
        logps = torch.log_softmax(logits / (request.temperature or 1.0), -1)
        exact = logps.gather(1, torch.tensor(turn.ids)[:, None])[:, 0]
        worst = max(worst, float((exact - torch.tensor(turn.logprobs)).abs().max()))
    return worst


@torch.no_grad()
def train_all(policy: Any, seed: int) -> None:
    """Move every weight of a policy, its embedding too, by a hundredth of its spread."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in policy.parameters():
        if parameter.numel() > 1:
            parameter += 0.01 * parameter.std() * torch.randn(parameter.shape, generator=generator)


def train(policy: Any, seed: int) -> None:
    """Give the policy's adapter other weights."""
    torch.manual_seed(seed)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)


def word_of(policy: Any, ids: list[int]) -> str:
    """A word that a turn has, after its second token and not before."""
    pieces = [policy.tokenizer.decode([each]).strip() for each in ids]
    return next(piece for piece in pieces[2:] if len(piece) > 1 and piece not in pieces[:2])


def main(folder: str) -> None:
    """Play rounds of turns with the base, with two adapters, and with a stop string."""
    from lightning_mem1.engine.settings import EngineSettings, VllmSettings
    from lightning_mem1.engine.vllm import VllmEngine
    from lightning_mem1.policy.policy import LoraSettings, Policy
    from tiny import turns

    lora = LoraSettings(r=8, alpha=16, target_modules=r".*layers\.[23]\..*_proj")
    policy, version = Policy.load(folder, lora=lora).eval(), [0]
    settings = EngineSettings(16, 1024, kind="vllm", vllm=VllmSettings(enforce_eager=True))
    engine = VllmEngine(policy, settings, lambda: version[0])

    def tell(name: str, asked: list[Any]) -> list[Any]:
        done = turns(engine, asked)
        found = {"round": name, "gap": gap(policy, asked, done), "ids": [turn.ids for turn in done]}
        folders = sorted(path.name for path in engine.folders.path("any").parent.iterdir())
        print(json.dumps({**found, "adapter": engine.folders.name, "folders": folders}), flush=True)
        return done

    for temperature in (0.0, 0.5, 1.0):
        tell(f"temperature {temperature}", requests(policy.tokenizer, temperature))
    tell("temperature 1.0 again", requests(policy.tokenizer, 1.0))
    first = tell("whole", requests(policy.tokenizer, 0.0, ())[:1])[0].ids
    word = word_of(policy, first)
    tell("stopped", requests(policy.tokenizer, 0.0, (word,))[:1])
    print(json.dumps({"round": "word", "text": word, "decoded": [policy.tokenizer.decode([i]) for i in first]}))
    for version[0] in (1, 2):
        train(policy, version[0])
        tell(f"adapter {version[0]}", requests(policy.tokenizer, 0.0))


def main_whole(folder: str) -> None:
    """Play turns with the base, and with weights that are handed over twice."""
    from lightning_mem1.engine.settings import EngineSettings, VllmSettings
    from lightning_mem1.engine.vllm import VllmEngine
    from lightning_mem1.policy.policy import Policy
    from tiny import turns

    policy, version = Policy.load(folder, lora=None).eval(), [0]
    settings = EngineSettings(16, 1024, kind="vllm", vllm=VllmSettings(enforce_eager=True))
    engine, asked = VllmEngine(policy, settings, lambda: version[0]), requests(policy.tokenizer, 0.0)
    for version[0] in (0, 1, 2):
        if version[0]:
            train_all(policy, version[0])
        done = turns(engine, asked)
        found = {"round": f"weights {version[0]}", "gap": gap(policy, asked, done), "ids": [turn.ids for turn in done]}
        print(json.dumps({**found, "first": done[0].logprobs[0]}), flush=True)


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    sys.path.append(sys.argv[2])
    (main_whole if sys.argv[3:] == ["whole"] else main)(sys.argv[1])
