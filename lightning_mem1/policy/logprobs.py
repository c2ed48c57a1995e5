"""Log-probabilities and entropies of chosen tokens, without a (batch, sequence, vocabulary) tensor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK = 1024


def chunked_logprobs(
    hidden: Tensor,
    head: Callable[[Tensor], Tensor],
    ids: Tensor,
    temperature: float = 1.0,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """Score `ids` from the hidden states that predict them.

    Only (chunk, vocabulary) logits exist at any time: in the backward pass each chunk is computed again.

    Args:
        hidden: (N, width) hidden states.
        head: Maps (n, width) to logits (n, vocabulary).
        ids: (N,) token ids.
        temperature: Divides the logits, as in sampling.
        chunk: Tokens per chunk.

    Returns:
        Log-probabilities (N,) in nats and entropies (N,) in nats, both float32.
    """
    parts = []
    for h, i in zip(hidden.split(chunk), ids.split(chunk), strict=True):
        if torch.is_grad_enabled():
            parts.append(checkpoint(_score, h, i, head, temperature, use_reentrant=False))
        else:
            parts.append(_score(h, i, head, temperature))
    if not parts:
        return hidden.new_zeros(0, dtype=torch.float32), hidden.new_zeros(0, dtype=torch.float32)
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def _score(hidden: Tensor, ids: Tensor, head: Callable[[Tensor], Tensor], temperature: float) -> tuple[Tensor, Tensor]:
    logps = torch.log_softmax(head(hidden).float() / temperature, dim=-1)
    return logps.gather(1, ids[:, None])[:, 0], -(logps.exp() * logps).sum(-1)
