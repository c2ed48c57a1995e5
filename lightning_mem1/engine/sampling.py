"""Sampling one token for each running turn.

The log-prob that is stored is always that of the whole distribution at the sampling temperature, before any top-p
cut: training scores the same quantity, so importance ratios start at exactly 1. With top_p < 1 the sampler itself is a
renormalised, slightly sharper distribution, and the gradient is biased by that much; keep 1.0 for training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

COLDEST = 1e-6  # temperature; at lower ones too the largest logit is as good as certain


def sample(logits: Tensor, temperatures: Tensor, top_ps: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one id per row by inverting the cumulative distribution at a given uniform number.

    Args:
        logits: (n, vocabulary), on any device; the rest is on the CPU, where looking at it does not wait for a GPU.
        temperatures: (n,); 0 takes the largest logit, and its log-prob is that at temperature 1.
        top_ps: (n,) nucleus sizes; 1 for no cut.
        uniforms: (n,) float64 in [0, 1): each row's own randomness, so that the batch around it does not matter.

    Returns:
        ids (n,) and log-probs (n,) in nats.
    """
    any_greedy, any_cut = bool((temperatures == 0).any()), bool((top_ps < 1).any())
    settings = torch.stack([temperatures.double(), top_ps.double(), uniforms])
    settings = settings.to(logits.device, non_blocking=True)  # nor does sending it
    return draw(logits, settings[0], settings[1], settings[2], any_greedy, any_cut)


def draw(
    logits: Tensor, temperatures: Tensor, top_ps: Tensor, uniforms: Tensor, any_greedy: bool, any_cut: bool
) -> tuple[Tensor, Tensor]:
    """What `sample` does where the logits are, without a look at them: a CUDA graph may hold it.

    Args:
        logits: As in `sample`.
        temperatures, top_ps, uniforms: Likewise, float64 on the device of the logits.
        any_greedy: Whether any temperature may be 0.
        any_cut: Whether any nucleus size may be below 1.
    """
    greedy = temperatures == 0
    scale = torch.where(greedy, 1.0, temperatures.clamp(min=COLDEST)).float()  # or a quotient is none: inf
    logps = torch.log_softmax(logits.float() / scale[:, None], dim=-1)
    probs = logps.exp()
    ids = _invert(_nucleus(probs, top_ps) if any_cut else probs, uniforms)
    if any_greedy:
        ids = torch.where(greedy, logits.argmax(-1), ids)
    ids = ids.clamp(max=logits.shape[1] - 1)  # of logits that are nan, too
    return ids, logps.gather(1, ids[:, None])[:, 0]


def check_sampled(logprobs: Iterable[float]) -> None:
    """Raise ValueError for log-probs that are nan, once they are on the CPU: looking at logits would wait for a GPU."""
    if any(map(math.isnan, logprobs)):
        raise ValueError(
            "the policy's probabilities are no numbers: expected finite logits, got nan; its weights are broken, or "
            "its activations overflow: take an earlier checkpoint and a lower model.lr, or another model.compute.dtype"
        )


def _nucleus(probs: Tensor, top_ps: Tensor) -> Tensor:
    """Zero every id outside the smallest set whose probability reaches top_p (the most likely one always stays)."""
    probs = probs.double()
    ordered, order = probs.sort(dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    kept = torch.where((before < top_ps[:, None]) | (top_ps[:, None] >= 1), ordered, 0.0)
    return torch.zeros_like(probs).scatter(1, order, kept)


def _invert(probs: Tensor, uniforms: Tensor) -> Tensor:
    """The block of ids that a uniform number falls into, then the id: a whole vocabulary is summed, never scanned."""
    width = math.isqrt(probs.shape[1] - 1) + 1
    blocks = F.pad(probs, (0, -probs.shape[1] % width)).unflatten(1, (-1, width))
    # in float32 the tail of a large vocabulary would be lost
    until = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    target = uniforms[:, None] * until[:, -1:]
    block = _first_above(until, target)
    before = F.pad(until, (1, 0)).gather(1, block)
    inside = blocks.gather(1, block[..., None].expand(-1, -1, width))[:, 0].cumsum(-1, dtype=torch.float64)
    return (block * width + _first_above(inside, target - before))[:, 0]


def _first_above(cumulative: Tensor, target: Tensor) -> Tensor:
    """Where a row (n, m) first exceeds its target (n, 1), which rounding may have put outside: never where it rests."""
    zero = torch.zeros_like(target)
    highest = torch.nextafter(cumulative[:, -1:], zero)
    found = torch.searchsorted(cumulative, target.clamp(min=zero, max=highest), right=True)
    return found.clamp(max=cumulative.shape[1] - 1)  # where the numbers are nan nothing exceeds anything
