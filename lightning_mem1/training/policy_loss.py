"""The policy's loss of one forward pass, with its statistics.

What is known of an action token before the pass is in `TokenCredit`, in the batch's order of action tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mem1.policy.policy import Policy
from lightning_mem1.training.credit.algorithms import Algorithm
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
from lightning_mem1.training.settings import LossSettings
from lightning_mem1.training.update_stats import UpdateStats


@dataclass(frozen=True)
class PolicyLoss:
    """The settings of the loss: those of `LossSettings`, and what the algorithm adds to them.

    Attributes:
        temperature: Sampling temperature of the rollout.
        clip, clip_high: How far the probability ratio may go below and above 1.
        unit: What counts the same in the loss.
        kl_coef: Weight of the KL penalty in the loss; 0 when it is in the reward.
        sequence_ratio: One ratio per trajectory instead of one per token.
        state_weight: Weight of the policy loss on internal-state tokens, in units of that on action tokens.
        likelihood: Imitate what has credit: no ratio, no clip.
        drop_silent: Groups without a signal stay out of the mean.
    """

    temperature: float
    clip: float
    clip_high: float
    unit: Unit
    kl_coef: float = 0.0
    kl_estimator: KLEstimator = "k3"
    entropy_coef: float = 0.0
    sequence_ratio: bool = False
    state_weight: float = 1.0
    likelihood: bool = False
    drop_silent: bool = False

    @classmethod
    def of(cls, settings: LossSettings, algorithm: Algorithm, unit: Unit, temperature: float) -> PolicyLoss:
        """The loss of an algorithm with the user's settings, which win over its own but for the unit."""
        low, high = algorithm.clip_range(settings.clip, settings.clip_high)
        return cls(
            temperature=temperature,
            clip=low,
            clip_high=high,
            unit=algorithm.loss_unit or unit,
            kl_coef=settings.kl_coef if settings.kl_in == "loss" else 0.0,
            kl_estimator=settings.kl_estimator or "k3",
            entropy_coef=settings.entropy_coef,
            sequence_ratio=algorithm.sequence_ratio,
            state_weight=settings.state_weight,
            likelihood=algorithm.likelihood,
            drop_silent=algorithm.drops(settings.drop_silent),
        )

    @property
    def needs_all(self) -> bool:
        """Whether trajectories without an advantage matter too, through the KL penalty or the entropy bonus."""
        return bool(self.kl_coef or self.entropy_coef)

    def loss(
        self, policy: Policy, batch: Batch, credit: TokenCredit, totals: Mapping[str, int]
    ) -> tuple[Tensor, UpdateStats]:
        """Loss of a micro-batch whose update has `totals` trajectories, turns and tokens."""
        logprobs, entropy = policy.logprobs(batch, self.temperature, entropy_gradient=bool(self.entropy_coef))
        weights = token_weights(batch.trajectory_index, batch.turn_index, self.unit, **totals)
        is_state = credit.is_state.to(weights.device)
        # the rollout's own log-probs are the old policy: exact, and no second pass over the batch
        old = batch.rollout_logprobs if credit.old_logprobs is None else credit.old_logprobs.to(weights)
        known = (logprobs, old, credit.advantages.to(weights), self._trained(weights, is_state, credit.correction))
        if self.likelihood:
            loss, stats = likelihood_loss(*known)
        else:
            sequences = batch.trajectory_index if self.sequence_ratio else None
            loss, stats = clipped_policy_loss(*known, self.clip, self.clip_high, sequences)
        kl = torch.zeros(())
        if self.kl_coef:
            kl = (weights * kl_penalty(logprobs, self.reference(policy, batch), self.kl_estimator)).sum()
            loss = loss + self.kl_coef * kl
        if self.entropy_coef:
            loss = loss + self.entropy_coef * entropy_loss(entropy, weights)
        gap = (logprobs - batch.rollout_logprobs).detach()
        parts = (loss, stats["clip_fraction"], stats["approx_kl"], -entropy_loss(entropy, weights), kl, weights.sum())
        tokens = {"is_state": is_state, "entropy": entropy, "pull": stats["pull"], "outside": self._outside(gap)}
        return loss, UpdateStats.of(parts, gap.abs(), batch.turn_index, tokens)

    def value_loss(
        self, values: Tensor, batch: Batch, credit: TokenCredit, totals: Mapping[str, int], clip: float | None
    ) -> Tensor:
        """The critic's loss of a micro-batch, its tokens weighed as in `loss`."""
        weights = token_weights(batch.trajectory_index, batch.turn_index, self.unit, **totals)
        return clipped_value_loss(values, credit.values.to(weights), credit.returns.to(weights), weights, clip)

    def reference(self, policy: Policy, batch: Batch) -> Tensor:
        """(N,) log-probabilities with adapters off, in nats; its routers choose by themselves."""
        with policy.reference(), torch.no_grad():
            return policy.logprobs(batch, self.temperature, replay=False)[0]

    def _trained(self, weights: Tensor, is_state: Tensor, correction: Tensor | None) -> Tensor:
        """Weights of the policy loss."""
        if correction is not None:
            weights = weights * correction.to(weights)
        return weights if self.state_weight == 1 else torch.where(is_state, weights * self.state_weight, weights)

    def _outside(self, gap: Tensor) -> Tensor:
        """(N,) True where the ratio to the rollout lies outside the clip range."""
        ratio = gap.exp()
        return ~((ratio >= 1 - self.clip) & (ratio <= 1 + self.clip_high))
