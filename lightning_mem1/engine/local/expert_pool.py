"""The experts that routers chose for the tokens that a slot holds, next to their keys."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_mem1.policy.expert_choices import pack
from lightning_mem1.policy.routing import Routers
from lightning_mem1.types import ExpertChoices


class ExpertPool:
    """Choices of every router for `num_slots` contexts of at most `max_tokens` tokens; memory is taken once.

    Args:
        routers: Of the model.
        num_slots: Contexts held at once.
        max_tokens: Longest context, generated tokens included.
        device: Where they are.
    """

    def __init__(self, routers: Routers, num_slots: int, max_tokens: int, device: torch.device) -> None:
        self._routers = routers
        self._pool = torch.zeros(num_slots, max_tokens, routers.width, dtype=routers.dtype, device=device)

    def store(self, slots: Tensor, positions: Tensor, chosen: Mapping[int, Tensor]) -> None:
        """Keep what a pass left in `Pass.chosen`, of tokens at positions (T,) of slots (T,)."""
        self._pool[slots, positions] = self._routers.gathered(chosen)

    def copy(self, source: int, target: int, count: int) -> None:
        """Give slot `target` the choices of the first `count` tokens of slot `source`."""
        self._pool[target, :count] = self._pool[source, :count]

    def taken(self, slot: int, count: int) -> ExpertChoices:
        """Those of the first `count` tokens of a slot."""
        return pack(self._pool[slot, :count])
