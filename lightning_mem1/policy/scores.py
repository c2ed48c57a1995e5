"""How a layer makes attention weights of queries and keys, beyond what SDPA knows.

Three things differ from model to model: what a token sees by position alone (a sliding window, a chunk), a soft cap of
the scores (Gemma 2), and sinks, which take weight without giving a value (gpt-oss).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

MAX_SCORES = 1 << 25  # scores that exist at once, all heads counted: 128 MiB in float32


@dataclass(frozen=True)
class PositionRule:
    """What a token sees of the tokens before it, by their positions in the context.

    Attributes:
        window: So many positions, its own one counted; None for all.
        chunk: Those in its own chunk of so many positions; None for all.
    """

    window: int | None = None
    chunk: int | None = None

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        """True where position `query` may see position `key`, whichever comes first (broadcastable tensors).

        >>> rule, positions = PositionRule(window=2), torch.arange(4)
        >>> (rule.sees(positions[:, None], positions) & (positions[:, None] >= positions)).int().tolist()
        [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
        """
        seen = torch.ones_like(query - key, dtype=torch.bool)
        if self.window is not None:
            seen &= key > query - self.window
        if self.chunk is not None:
            seen &= key // self.chunk == query // self.chunk
        return seen

    def first_seen(self, position: int) -> int:
        """The first position that a token at `position` sees; tokens after it see none before that."""
        first = 0
        if self.window is not None:
            first = max(first, position - self.window + 1)
        if self.chunk is not None:
            first = max(first, position // self.chunk * self.chunk)
        return first


EVERYTHING = PositionRule()


@dataclass(frozen=True)
class Scores:
    """The scores of one layer.

    Attributes:
        scaling: Factor of the products; None for 1 / sqrt(width).
        rule: What a token sees by position.
        softcap: Scores become ``softcap * tanh(score / softcap)``.
        sinks: (H,) one more score for each head, of a key without a value.
    """

    scaling: float | None = None
    rule: PositionRule = EVERYTHING
    softcap: float | None = None
    sinks: Tensor | None = None

    @property
    def written_out(self) -> bool:
        """Whether SDPA cannot make them."""
        return self.softcap is not None or self.sinks is not None


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scores: Scores) -> Tensor:
    """Attention with its scores written out, some queries at a time; a backward pass computes them again.

    Args:
        query: (n, H, S, D).
        key: (n, H_kv, K, D); H is a multiple of H_kv.
        value: (n, H_kv, K, V).
        mask: Broadcasts to (n, 1, S, K): True where a query sees a key, or a float that is added to the scores.
        scores: What to make of the products; the rule is expected to be in the mask.

    Returns:
        (n, H, S, V).
    """
    repeats = query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(repeats, dim=1) for each in (key, value))
    mask = mask.expand(*mask.shape[:2], query.shape[2], -1)
    chunk = max(1, MAX_SCORES // (query.shape[0] * query.shape[1] * key.shape[2]))
    sinks = scores.sinks if scores.sinks is not None else query.new_zeros(0)
    parts = []
    for q, m in zip(query.split(chunk, dim=2), mask.split(chunk, dim=2), strict=True):
        if torch.is_grad_enabled() and chunk < query.shape[2]:
            parts.append(checkpoint(_weighted, q, key, value, m, sinks, scores, use_reentrant=False))
        else:
            parts.append(_weighted(q, key, value, m, sinks, scores))
    return torch.cat(parts, dim=2)


def _weighted(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, sinks: Tensor, how: Scores) -> Tensor:
    scaling = query.shape[-1] ** -0.5 if how.scaling is None else how.scaling
    scores = (query @ key.transpose(2, 3) * scaling).float()
    if how.softcap is not None:
        scores = torch.tanh(scores / how.softcap) * how.softcap
    lowest = torch.finfo(scores.dtype).min  # not minus infinity: a padded query may see nothing
    scores = scores.masked_fill(~mask, lowest) if mask.dtype == torch.bool else scores + mask
    if len(sinks):
        scores = torch.cat([scores, sinks.float()[:, None, None].expand(*scores.shape[:3], 1)], dim=3)
    weights = torch.softmax(scores, dim=-1)[..., : key.shape[2]]
    return weights.to(value.dtype) @ value
