"""What is known of each action token before the pass that trains it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenCredit:
    """What is known of N action tokens, trajectory by trajectory, turn by turn.

    Attributes:
        advantages: (N,) float32.
        is_state: (N,) True on the tokens of an internal state.
        values: (N,) float32, what the critic expected before the update; zeros without one.
        returns: (N,) float32, what it should have expected; zeros without one.
        credited: (N,) True when the token's trajectory could be learnt from.
        old_logprobs: (N,) the old policy of the ratio, in nats; None for the rollout's own.
        correction: (N,) weights against an engine that is off, see `importance`; None for none.
    """

    advantages: Tensor
    is_state: Tensor
    values: Tensor
    returns: Tensor
    credited: Tensor
    old_logprobs: Tensor | None = None
    correction: Tensor | None = None

    @property
    def has_signal(self) -> bool:
        """Whether any token has an advantage."""
        return bool(self.advantages.any())

    @classmethod
    def unknown(cls, count: int) -> TokenCredit:
        """Of tokens that nothing is to be learnt from."""
        zeros, no = torch.zeros(count), torch.zeros(count, dtype=torch.bool)
        return cls(zeros, no, zeros, zeros, no)

    @classmethod
    def cat(cls, parts: Sequence[TokenCredit]) -> TokenCredit:
        """One after the other."""
        lists = {f.name: [getattr(part, f.name) for part in parts] for f in fields(cls)}
        joined: dict[str, Any] = {name: None if of[0] is None else torch.cat(of) for name, of in lists.items()}
        return cls(**joined)
