"""Log-probabilities and entropies of chosen tokens, without a (batch, sequence, vocabulary) tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    once: bool = False,
) -> tuple[Tensor, Tensor]:
    """Score `ids` from the hidden states that predict them.

    Only (chunk, vocabulary) logits exist at any time: in the backward pass each chunk is computed again, or with `once`
    the forward pass keeps the slope of every log-probability, (N, width), and no logits are needed again.

    Args:
        hidden: (N, width) hidden states.
        head: Maps (n, width) to logits (n, vocabulary).
        ids: (N,) token ids.
        temperature: Divides the logits, as in sampling.
        chunk: Tokens per chunk.
        once: For a head whose weights are not trained, where nothing asks for gradients of the entropies.

    Returns:
        Log-probabilities (N,) in nats and entropies (N,) in nats, both float32.
    """
    parts = []
    for h, i in zip(hidden.split(chunk), ids.split(chunk), strict=True):
        if once and h.requires_grad:
            parts.append(_ScoredOnce.apply(h, i, head, temperature))  # type: ignore[no-untyped-call]
        elif torch.is_grad_enabled():
            parts.append(checkpoint(_score, h, i, head, temperature, use_reentrant=False))
        else:
            parts.append(_score(h, i, head, temperature))
    if not parts:
        return hidden.new_zeros(0, dtype=torch.float32), hidden.new_zeros(0, dtype=torch.float32)
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def _score(hidden: Tensor, ids: Tensor, head: Callable[[Tensor], Tensor], temperature: float) -> tuple[Tensor, Tensor]:
    logps = torch.log_softmax(head(hidden).float() / temperature, dim=-1)
    return logps.gather(1, ids[:, None])[:, 0], -(logps.exp() * logps).sum(-1)


class _ScoredOnce(torch.autograd.Function):
    """`_score` whose gradient is found with the scores: that of a log-probability is a row times one number."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden: Tensor, ids: Tensor, head: Callable[[Tensor], Tensor], temperature: float
    ) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():  # through whatever the model's own head does to its logits
            alone = hidden.detach().requires_grad_()
            logits = head(alone)
        logps = torch.log_softmax(logits.detach().float() / temperature, dim=-1)
        chosen = logps.gather(1, ids[:, None])
        slope = logps.exp()
        entropies = -torch.einsum("nv,nv->n", slope, logps)
        slope.neg_().scatter_add_(1, ids[:, None], torch.ones_like(chosen)).div_(temperature)
        (found,) = torch.autograd.grad(logits, alone, slope.to(logits.dtype))
        ctx.save_for_backward(found)
        ctx.mark_non_differentiable(entropies)
        return chosen[:, 0], entropies

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return (slope * gradients[0][:, None]).to(slope.dtype), None, None, None
