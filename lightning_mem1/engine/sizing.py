"""An engine whose slots fit the longest context."""

from __future__ import annotations

from dataclasses import replace

from lightning_mem1.engine.settings import EngineSettings


def fitting(budget: EngineSettings, longest: int, positions: int | None = None) -> EngineSettings:
    """An engine for contexts of up to `longest` tokens whose pool holds no more tokens than `budget`'s.

    With 8 slots of 100 tokens to spend::

        longest  90    8 slots of  90
        longest 250    3 slots of 250
        longest 900    1 slot  of 900, the least there can be
        longest 900    2 slots of 400 when the policy has 400 positions

    Servers and vLLM mind their own memory: as many slots as there are.

    Args:
        budget: The config's engine.
        longest: Longest context, the turn written in it included, in tokens.
        positions: Positions that the policy has; None for no limit.
    """
    limit = longest if positions is None else min(longest, positions)
    if budget.kind != "local":
        return replace(budget, max_context_tokens=limit)
    slots = budget.num_slots * budget.max_context_tokens // limit
    return replace(budget, num_slots=max(1, min(budget.num_slots, slots)), max_context_tokens=limit)
