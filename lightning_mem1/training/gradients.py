"""Gradients of an update in manual optimisation: where they come from, and how they are added up and clipped.

The policy's and the critic's never mix: each pass runs, backward included, with one adapter on, and each is clipped on
its own, so that a large error of the critic does not shrink the policy's step.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_mem1.policy.critic import Critic
from lightning_mem1.policy.policy import Policy
from lightning_mem1.training.credit.token_credit import TokenCredit
from lightning_mem1.training.layouts.collate import Batch
from lightning_mem1.training.policy_loss import PolicyLoss
from lightning_mem1.training.update_stats import UpdateStats

# The passes of an optimizer step, with what is known of their tokens; None: an idle pass, which teaches nothing.
Known = Iterable[tuple[Batch, TokenCredit | None]]
Backward = Callable[[Tensor], None]


def policy_gradients(
    objective: PolicyLoss, policy: Policy, passes: Known, totals: Mapping[str, int], backward: Backward
) -> UpdateStats:
    """Add the policy's gradients up over passes; returns what the passes add up to."""
    found = UpdateStats.empty()
    for batch, columns in passes:
        loss, more = objective.loss(policy, batch, columns or _idle(batch), totals)
        backward(loss if columns else 0 * loss)
        found = found + more if columns else found
    return found


def critic_gradients(
    objective: PolicyLoss, critic: Critic, passes: Known, totals: Mapping[str, int], backward: Backward
) -> Tensor:
    """Add the critic's gradients up over passes; returns (2,) float64, its loss and the number of tokens."""
    sums = torch.zeros(2, dtype=torch.float64)
    for batch, columns in passes:
        with critic.on():  # around the backward pass too: it may compute activations again
            values = critic.values(batch)
            loss = objective.value_loss(values, batch, columns or _idle(batch), totals, critic.settings.value_clip)
            backward(loss if columns else 0 * loss)
        if columns:
            sums += torch.tensor([float(loss.detach()), float(len(values))], dtype=torch.float64)
    return sums


def _idle(batch: Batch) -> TokenCredit:
    return TokenCredit.unknown(len(batch.action_ids))


def clip(parameters: Sequence[nn.Parameter], max_norm: float | None, trainer: Trainer) -> float:
    """Add gradients up over ranks and clip them; every rank has to call it.

    Args:
        parameters: What is clipped as one.
        max_norm: None for no clipping.
        trainer: Knows the ranks.

    Returns:
        Their norm before clipping, nan or inf when they are bad.
    """
    if trainer.world_size > 1:
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad = trainer.strategy.reduce(parameter.grad, reduce_op="sum")  # type: ignore[assignment]
    return float(torch.nn.utils.clip_grad_norm_(parameters, math.inf if max_norm is None else max_norm))


def no_sync(trainer: Trainer) -> contextlib.AbstractContextManager[Any]:
    """Around a backward pass: ranks may take different numbers of passes, so gradients do not meet in each."""
    block = getattr(trainer.strategy, "block_backward_sync", None)
    return block() if block else contextlib.nullcontext()
