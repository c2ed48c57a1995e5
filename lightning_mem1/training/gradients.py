"""Gradients of an update in manual optimisation: where they come from, and how they are added up and clipped.

The policy's and the critic's never mix: each pass runs, backward included, with one adapter on, and each is clipped on
its own, so that a large error of the critic does not shrink the policy's step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from lightning_mem1.policy.critic import Critic
from lightning_mem1.policy.parts import whole
from lightning_mem1.policy.policy import Policy
from lightning_mem1.training.credit.token_credit import TokenCredit
from lightning_mem1.training.layouts.collate import Batch
from lightning_mem1.training.policy_loss import PolicyLoss
from lightning_mem1.training.ranks import Ranks
from lightning_mem1.training.update_stats import UpdateStats

# The passes of an optimizer step, with what is known of their tokens; None: an idle pass, which teaches nothing.
Known = Iterable[tuple[Batch, TokenCredit | None]]
Backward = Callable[[Tensor], None]


def policy_gradients(
    policy_loss: PolicyLoss, policy: Policy, passes: Known, totals: Mapping[str, int], backward: Backward
) -> UpdateStats:
    """Add the policy's gradients up over passes; returns what the passes add up to."""
    found = UpdateStats.empty()
    for batch, credit in passes:
        loss, more = policy_loss.loss(policy, batch, credit or _idle(batch), totals)
        backward(loss if credit else 0 * loss)
        found = found + more if credit else found
    return found


def critic_gradients(
    policy_loss: PolicyLoss, critic: Critic, passes: Known, totals: Mapping[str, int], backward: Backward
) -> Tensor:
    """Add the critic's gradients up over passes; returns (2,) float64, its loss and the number of tokens."""
    sums = torch.zeros(2, dtype=torch.float64)
    for batch, credit in passes:
        with critic.on():  # around the backward pass too: it may compute activations again
            values = critic.values(batch)
            loss = policy_loss.value_loss(values, batch, credit or _idle(batch), totals, critic.settings.value_clip)
            backward(loss if credit else 0 * loss)
        if credit:
            sums += torch.tensor([float(loss.detach()), float(len(values))], dtype=torch.float64)
    return sums


def _idle(batch: Batch) -> TokenCredit:
    return TokenCredit.unknown(len(batch.action_ids))


def clip(parameters: Sequence[nn.Parameter], max_norm: float | None, ranks: Ranks) -> float:
    """Add gradients up over ranks and clip them; every rank has to call it.

    Args:
        parameters: What is clipped as one.
        max_norm: None for no clipping.
        ranks: Those whose gradients are added up.

    Returns:
        Their norm before clipping, nan or inf when they are bad.
    """
    ranks.add_gradients(parameters)
    return float(whole(torch.nn.utils.clip_grad_norm_(parameters, math.inf if max_norm is None else max_norm)))
