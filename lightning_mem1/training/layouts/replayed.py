"""The experts of the rollout, token by token of a batch, for routing replay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lightning_mem1.policy.expert_choices import UNKNOWN, unpacked
from lightning_mem1.training.layouts.spans import ScoredSpan
from lightning_mem1.types import Trajectory


def has_routing(trajectories: Sequence[Trajectory]) -> bool:
    """Whether choices of experts were recorded of any turn."""
    return any(turn.experts is not None for trajectory in trajectories for turn in trajectory.turns)


def replayed(
    trajectories: Sequence[Trajectory], spans: Sequence[ScoredSpan], places: Iterable[Tensor], shape: Sequence[int]
) -> Tensor | None:
    """Choices of experts of a batch.

    A token that is there once for several turns has the choices of the first of them: those by which its successor was
    sampled. A later turn may have run it again, where its keys had gone from the engine.

    Args:
        trajectories: What was played.
        spans: The scored turns.
        places: For each the places, in the flattened batch, of the tokens of its context and of those behind it.
        shape: (B, L) of the batch.

    Returns:
        (B, L, width) int16, -1 for padding, for the last tokens of turns that no later one continues, and for turns
        whose choices are not known; None when none are.

    Raises:
        ValueError: turns of unlike models.
    """
    if not has_routing(trajectories):
        return None
    known = [[*unpacked(turn.experts for turn in trajectory.turns)] for trajectory in trajectories]
    widths = {each.shape[1] for choices in known for each in choices if each is not None}
    if len(widths) > 1:
        raise ValueError(f"cannot replay routing: expected turns of one model, got {sorted(widths)} choices of a token")
    found = torch.full((int(torch.tensor(shape).prod()), *widths), UNKNOWN, dtype=torch.int16)
    for span, where in zip(spans, places, strict=True):
        choices = known[span.trajectory][span.turn]
        if choices is not None:
            where = where[: len(choices)]
            free = found[where, 0] == UNKNOWN
            found[where[free]] = choices[free]
    return found.unflatten(0, tuple(shape))
