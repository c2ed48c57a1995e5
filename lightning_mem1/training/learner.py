"""The optimizer steps of an rl_step: what was played and credited, into new weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer

from lightning_mem1.policy.critic import CRITIC, Critic
from lightning_mem1.policy.policy import Policy
from lightning_mem1.training import gradients
from lightning_mem1.training.credit.filters import num_action_tokens, token_counts
from lightning_mem1.training.credit.token_credit import TokenCredit
from lightning_mem1.training.layouts.collate import Batch
from lightning_mem1.training.layouts.microbatches import Microbatches
from lightning_mem1.training.policy_loss import PolicyLoss
from lightning_mem1.training.ranks import Ranks
from lightning_mem1.training.update_stats import UpdateStats
from lightning_mem1.types import Trajectory


@dataclass(frozen=True)
class Learner:
    """Takes optimizer steps on minibatches; every rank takes the same collective calls, whatever it holds.

    Attributes:
        policy, critic: What trains; no critic where the algorithm has none.
        policy_loss: The loss of a forward pass.
        microbatches: How trajectories are cut into forward passes.
        max_grad_norm: Gradients are clipped to this norm, the policy's and the critic's each; None for no clipping.
        ranks: Those that learn together.
        backward: Runs a backward pass.
    """

    policy: Policy
    critic: Critic | None
    policy_loss: PolicyLoss
    microbatches: Microbatches
    max_grad_norm: float | None
    ranks: Ranks
    backward: gradients.Backward

    def step(
        self,
        optimizer: LightningOptimizer,
        trajectories: Sequence[Trajectory],
        credit: Sequence[TokenCredit],
        critic_alone: bool = False,
    ) -> dict[str, float]:
        """One optimizer step over a minibatch; none where a gradient is not finite, or nothing has a signal.

        Args:
            optimizer: Of policy and critic.
            trajectories: The minibatch.
            credit: What is known of their tokens, by trajectory.
            critic_alone: Leave the policy as it is.

        Returns:
            Sums by name, see `UpdateStats.named`; the norms before clipping; ``skipped``, 1 for a step not taken
            because of a number that is not finite.
        """
        optimizer.zero_grad()
        stats = self._add_gradients(trajectories, credit, critic_alone)
        # what has no signal keeps no gradient: a step would only replay the optimizer's momentum
        has_signal = {"policy": stats["tokens"], CRITIC: stats.get("value_tokens")}
        trained = {"policy": list(self.policy.trained().values()), CRITIC: self.critic.trained() if self.critic else []}
        norms = {
            name: gradients.clip(parameters, self.max_grad_norm, self.ranks)
            for name, parameters in trained.items()
            if has_signal[name]
        }
        finite = all(map(math.isfinite, (stats["loss"], stats.get("value_loss", 0.0), *norms.values())))
        if norms and finite:
            optimizer.step()
        optimizer.zero_grad()
        stats |= {"grad_norm": norms.get("policy", 0.0), "critic_grad_norm": norms.get(CRITIC, 0.0)}
        return {**stats, "skipped": 0.0 if finite else 1.0}

    @torch.no_grad()
    def measure(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        """The sums of one trajectory of each rank, without learning: an rl_step without a signal has a gap too."""
        chosen = [i for i, t in enumerate(trajectories) if num_action_tokens(t)][:1]
        found = UpdateStats.empty()
        for here, batch in self.microbatches.batches(trajectories, chosen, self.policy.device):
            nothing, counts = TokenCredit.unknown(len(batch.action_ids)), token_counts([trajectories[i] for i in here])
            stats = self.policy_loss.loss(self.policy, batch, nothing, counts)[1]
            found = stats if here else found
        return found.reduced(self.ranks.reduce).named()

    def _add_gradients(
        self, trajectories: Sequence[Trajectory], credit: Sequence[TokenCredit], critic_alone: bool
    ) -> dict[str, float]:
        """The policy's from what has an advantage, the critic's from all that has credit; sums by name."""
        totals = self._totals(trajectories)
        scored = [
            i
            for i, t in enumerate(trajectories)
            if not critic_alone and num_action_tokens(t) and (self.policy_loss.needs_all or credit[i].has_signal)
        ]
        known = self._known(trajectories, credit, scored)
        found = gradients.policy_gradients(self.policy_loss, self.policy, known, totals, self._backward)
        stats = found.reduced(self.ranks.reduce).named()
        if self.critic:
            known = self._known(trajectories, credit, [i for i, c in enumerate(credit) if c.credited.any()])
            sums = gradients.critic_gradients(self.policy_loss, self.critic, known, totals, self._backward)
            stats |= dict(zip(("value_loss", "value_tokens"), self.ranks.total(sums).tolist(), strict=True))
        return stats

    def _known(
        self, trajectories: Sequence[Trajectory], credit: Sequence[TokenCredit], chosen: Sequence[int]
    ) -> Iterator[tuple[Batch, TokenCredit | None]]:
        """The passes over the chosen trajectories, with what is known of their tokens."""
        for here, batch in self.microbatches.batches(trajectories, chosen, self.policy.device):
            yield batch, TokenCredit.cat([credit[i] for i in here]) if here else None

    def _totals(self, trajectories: Sequence[Trajectory]) -> dict[str, int]:
        """Counts of the whole minibatch over all ranks, unscored trajectories included: they are zeros of the mean."""
        counts = token_counts(trajectories)
        summed = self.ranks.total(torch.tensor(list(counts.values()), dtype=torch.float64)).tolist()
        return dict(zip(counts, map(int, summed), strict=True))

    def _backward(self, loss: torch.Tensor) -> None:
        with self.ranks.apart():
            self.backward(loss)
