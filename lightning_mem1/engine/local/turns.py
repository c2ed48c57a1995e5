"""Turns that run in slots, and what a pass needs to know of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from lightning_mem1.engine.local.slots import Span
from lightning_mem1.types import GenerationRequest


@dataclass
class Running:
    """A turn in a slot: `ids` is all the slot holds or is about to hold, the first `cached` have keys."""

    request: GenerationRequest
    slot: int
    ids: list[int]
    cached: int
    saves: int | None = None  # length at which recurrent layers save a state on the way
    logprobs: list[float] = field(default_factory=list)

    @property
    def generated(self) -> list[int]:
        return self.ids[len(self.request.context_ids) :]

    @cached_property
    def draws(self) -> list[float]:
        """The uniform number of each token that the turn may write, by its seed alone."""
        rng = random.Random(self.request.seed)
        return [rng.random() for _ in range(self.request.max_new_tokens)]


def prefill_of(starting: Sequence[Running]) -> list[Span]:
    """The tokens without keys of turns that start."""
    return [Span(run.slot, run.cached, len(run.ids) - run.cached, run.saves) for run in starting]


def sampling_of(runs: Sequence[Running]) -> tuple[Tensor, Tensor, Tensor]:
    """Temperatures, nucleus sizes and uniform numbers (n,) of the next token of each turn."""
    temperatures = torch.tensor([run.request.temperature for run in runs])
    top_ps = torch.tensor([run.request.top_p for run in runs], dtype=torch.float64)
    uniforms = torch.tensor([run.draws[len(run.logprobs)] for run in runs], dtype=torch.float64)
    return temperatures, top_ps, uniforms


def on_cpu(ids: Tensor, logprobs: Tensor) -> tuple[list[float], list[float]]:
    """What was sampled, in one transfer."""
    found = torch.stack([ids.double(), logprobs.double()]).tolist()
    return found[0], found[1]
