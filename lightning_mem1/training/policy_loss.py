"""The objective: the loss of one forward pass, with its statistics.

What is known of an action token before the pass is in `TokenCredit`, in the batch's order of action tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mem1.policy.policy import Policy
from lightning_mem1.training.credit.token_credit import TokenCredit
from lightning_mem1.training.layouts.collate import Batch
from lightning_mem1.training.losses import (
    KLEstimator,
    Unit,
    clipped_policy_loss,
    clipped_value_loss,
    entropy_loss,
    kl_penalty,
    likelihood_loss,
    token_weights,
)
from lightning_mem1.training.update_stats import UpdateStats


@dataclass(frozen=True)
class PolicyLoss:
    """The settings of the loss, see the arguments of `Mem1Module` of the same names.

    Attributes:
        beta: Weight of the KL penalty in the loss; 0 when it is in the reward.
        sequence_ratio: One ratio per trajectory instead of one per token.
        state_loss_weight: Weight of the policy loss on internal-state tokens, in units of that on action tokens.
        likelihood: Imitate what has credit: no ratio, no clip.
    """

    temperature: float
    epsilon: float
    epsilon_high: float
    unit: Unit
    beta: float = 0.0
    kl_estimator: KLEstimator = "k3"
    entropy_coef: float = 0.0
    sequence_ratio: bool = False
    state_loss_weight: float = 1.0
    likelihood: bool = False

    def loss(
        self, policy: Policy, batch: Batch, columns: TokenCredit, totals: Mapping[str, int]
    ) -> tuple[Tensor, UpdateStats]:
        """Loss of a micro-batch whose update has `totals` trajectories, turns and tokens."""
        logprobs, entropy = policy.logprobs(batch, self.temperature)
        weights = token_weights(batch.trajectory_index, batch.turn_index, self.unit, **totals)
        is_state = columns.is_state.to(weights.device)
        # the rollout's own log-probs are the old policy: exact, and no second pass over the batch
        old = batch.rollout_logprobs if columns.old_logprobs is None else columns.old_logprobs.to(weights)
        known = (logprobs, old, columns.advantages.to(weights), self._trained(weights, is_state, columns.correction))
        if self.likelihood:
            loss, stats = likelihood_loss(*known)
        else:
            sequences = batch.trajectory_index if self.sequence_ratio else None
            loss, stats = clipped_policy_loss(*known, self.epsilon, self.epsilon_high, sequences)
        kl = torch.zeros(())
        if self.beta:
            kl = (weights * kl_penalty(logprobs, self.reference(policy, batch), self.kl_estimator)).sum()
            loss = loss + self.beta * kl
        if self.entropy_coef:
            loss = loss + self.entropy_coef * entropy_loss(entropy, weights)
        difference = (logprobs - batch.rollout_logprobs).detach()
        parts = (loss, stats["clip_fraction"], stats["approx_kl"], -entropy_loss(entropy, weights), kl, weights.sum())
        told = {"is_state": is_state, "entropy": entropy, "pull": stats["pull"], "outside": self._outside(difference)}
        return loss, UpdateStats.of(parts, difference.abs(), batch.turn_index, told)

    def value_loss(
        self, values: Tensor, batch: Batch, columns: TokenCredit, totals: Mapping[str, int], clip: float | None
    ) -> Tensor:
        """The critic's loss of a micro-batch, its tokens weighed as in `loss`."""
        weights = token_weights(batch.trajectory_index, batch.turn_index, self.unit, **totals)
        return clipped_value_loss(values, columns.values.to(weights), columns.returns.to(weights), weights, clip)

    def reference(self, policy: Policy, batch: Batch) -> Tensor:
        """(N,) log-probabilities with adapters off, in nats."""
        with policy.reference(), torch.no_grad():
            return policy.logprobs(batch, self.temperature)[0]

    def _trained(self, weights: Tensor, is_state: Tensor, correction: Tensor | None) -> Tensor:
        """Weights of the policy loss."""
        if correction is not None:
            weights = weights * correction.to(weights)
        return (
            weights if self.state_loss_weight == 1 else torch.where(is_state, weights * self.state_loss_weight, weights)
        )

    def _outside(self, difference: Tensor) -> Tensor:
        """(N,) True where the ratio to the rollout lies outside the clip range."""
        ratio = difference.exp()
        return ~((ratio >= 1 - self.epsilon) & (ratio <= 1 + self.epsilon_high))
