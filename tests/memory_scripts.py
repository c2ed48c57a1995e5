"""Scripts that use their memory in every way that a mode offers, and in ways that no mode does; shared by the tests."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

import torch

from lightning_mem1.context.settings import memory_mode
from lightning_mem1.engine.scripted import ScriptedEngine, Writer
from lightning_mem1.policy.policy import Policy
from lightning_mem1.types import Completion

# A setting of each mode in which turns leave early enough for short episodes.
NARROW: dict[str, Any] = {
    "compaction": {"mode": "compaction", "budget": 120},
    "masked": {"mode": "masked", "window": 1, "note": "gone"},
    "fold": "fold",
    "multiscale": "multiscale",
    "edit": "edit",
    "recall": "recall",
    "recall over compaction": {"mode": "recall", "over": "compaction", "budget": 120},
}


class ScoredScript(ScriptedEngine):
    """Writes what a script says; its log-probs are those of a policy, read off plain forward passes, one a turn."""

    def __init__(self, policy: Policy, writers: Sequence[Writer]) -> None:
        super().__init__(policy.tokenizer, writers)
        self.policy = policy

    def step(self) -> list[Completion]:
        """Answer the oldest request."""
        request = self._queue[0]
        (said,) = super().step()
        ids = [*request.context_ids, *said.ids]
        with torch.no_grad():
            logits = self.policy.causal_lm(torch.tensor([ids])).logits[0, len(request.context_ids) - 1 : -1]
        logprobs = logits.log_softmax(-1)[range(len(said.ids)), said.ids]
        return [Completion(said.session, said.ids, logprobs.tolist())]


def writer(setting: Any, seed: int = 0) -> Writer:
    """Writes turns of a random script: actions of the environment and of the mode, ranges, nonsense; memories too.

    What it writes follows from the seed and from what it sees.
    """
    names = memory_mode(setting).actions

    def write(context: str) -> str:
        rng = random.Random(f"{seed}/{context}")
        if context.endswith("<summary>"):
            return rng.choice(("red</summary>", "shoes red</summary>", "red red red"))
        numbers = [int(number) for number in re.findall(r"\nturn (\d+)", context)]
        number = max(numbers, default=-1) + 1  # of this turn
        first, last = rng.randint(0, number), number - rng.choice((0, 1, 1, 1))
        state = rng.choice(("red", "shoes", f"[{first}] red", f"[{first}-{last}] red", f"[{last}] red", "[7-9] red"))
        named = rng.choice((*names, *names, "click"))
        argument = rng.choice((f"{first}", f"{last}", f"{first}-{last}", f"{first}, {last}: red", "red", "", "9"))
        turn = f"<summary>{state}</summary><answer>{named}[{argument}]</answer>"
        return rng.choice((turn, turn, turn, turn, f"<answer>{named}[{argument}]</answer>", "red <answer>"))

    return write
