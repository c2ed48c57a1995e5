"""A tiny random Qwen2 policy and short random trajectories, shared by the tests."""

from __future__ import annotations

import random
from functools import cache

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from lightning_mem1.policy.attention import register
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.types import Objective, StepResult, StopReason, Task, Trajectory, Turn
from lightning_mem1.warmstart.tokenizer import CHAT_TEMPLATE, TURN_END, train_tokenizer

TEXT = [
    "<summary>red shoes</summary><answer>click[red]</answer> search page turns left state assistant user 0123456789"
]


@cache
def tiny_tokenizer():
    """Its template ends no reply: a random policy would end turns there at random, and tests count their tokens."""
    tokenizer = train_tokenizer(TEXT, vocab_size=320)
    ends = f"{{{{ '{TURN_END}' if m['role'] == 'user' else '' }}}}"
    tokenizer.chat_template = CHAT_TEMPLATE.replace(TURN_END, ends)
    return tokenizer


def tiny_policy(lora: LoraSettings | None = None, seed: int = 0, kv_heads: int = 2, tied: bool = True) -> Policy:
    """Two layers, width 32, random weights; the adapter's B matrices are random too, so that it matters.

    The head is the embedding, unless it is not `tied`.
    """
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tiny_tokenizer()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=2048,
        initializer_range=0.15,
        tie_word_embeddings=tied,
    )
    config._attn_implementation = register()
    policy = Policy(Qwen2ForCausalLM(config), tiny_tokenizer(), lora, source="tiny")
    if lora:
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    return policy.eval()


def random_ids(rng: random.Random, length: int) -> list[int]:
    """Ordinary token ids: no end of text, no tag."""
    return [rng.randrange(3, 250) for _ in range(length)]


def task(number: int = 0, max_turns: int = 8) -> Task:
    return Task(f"tiny/{number}", f"count to {number}", (Objective("how many?", (str(number),)),), max_turns)


def random_trajectory(
    rng: random.Random, lengths: list[tuple[int, int]], prompt: list[int], number: int = 0, staged: bool = False
) -> Trajectory:
    """A trajectory with given (action, information) lengths; its log-probs are zero until something scores it.

    With `staged` a memory as long as the action is written after each turn but the last.
    """
    turns = []
    for a, i in lengths:
        turns.append(Turn(random_ids(rng, a), [0.0] * a, random_ids(rng, i)))
        if staged and len(turns) < 2 * len(lengths) - 1:
            turns.append(Turn(random_ids(rng, a), [0.0] * a, kind="memory", opening_ids=random_ids(rng, 2)))
    return Trajectory(task(number), prompt, turns, StopReason.DONE)


class WordEnv:
    """Replies with words until `num_turns` have been taken; rewards every turn by its number."""

    def __init__(self, words: list[str]) -> None:
        self.words = list(words)
        self.actions: list[str] = []

    def observe(self) -> str:
        return "search page"

    def step(self, action: str) -> StepResult:
        self.actions.append(action)
        done = len(self.actions) >= len(self.words)
        word = self.words[len(self.actions) - 1]
        return StepResult("" if done else word, reward=1.0 if done else 0.0, done=done, info={"success": float(done)})


def turns(engine, asked):
    """The completions of some requests, in their order; the engine is reset first."""
    engine.reset()
    for request in asked:
        engine.submit(request)
    found = {}
    while engine.pending:
        found |= {each.session: each for each in engine.step()}
    return [found[request.session] for request in asked]
