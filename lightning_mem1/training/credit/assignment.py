"""From what was played to what the loss needs to know of each action token: filters, shaping, credit.

A trajectory that cannot be learnt from (see `filters`) keeps advantages of exactly 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_mem1.context.contexts import Contexts
from lightning_mem1.context.internal_state import Decode, state_end, state_mask, state_spans
from lightning_mem1.training.choices import KLEstimator
from lightning_mem1.training.credit.advantages import whiten
from lightning_mem1.training.credit.algorithms import Algorithm
from lightning_mem1.training.credit.filters import sound, unended
from lightning_mem1.training.credit.grouped_rollouts import GroupedRollouts
from lightning_mem1.training.credit.rewrites import segments
from lightning_mem1.training.credit.settings import CreditSettings
from lightning_mem1.training.credit.shaping import ShapingSettings, shaped_rewards
from lightning_mem1.training.credit.token_credit import TokenCredit
from lightning_mem1.training.losses import kl_penalty
from lightning_mem1.types import Trajectory

Scores = Mapping[str, Sequence[Tensor]]  # (T,) by trajectory: `reference` and `old` log-probs, `values`, by name


@dataclass(frozen=True)
class CreditAssigner:
    """The settings of credit, see the arguments of `Mem1Module` of the same names.

    Attributes:
        kl_coef: Weight of the KL penalty in the reward; 0 when it is in the loss.
        contexts: Those of the trajectories.
        decode: Ids to text.
        tag: Name of the internal state's tag.
        total: Adds a float64 tensor up over ranks.
    """

    algorithm: Algorithm
    settings: CreditSettings
    shaping: ShapingSettings
    max_new_tokens: int
    decode: Decode
    tag: str
    total: Callable[[Tensor], Tensor]
    kl_coef: float = 0.0
    kl_estimator: KLEstimator = "k1"
    contexts: Contexts = field(default_factory=Contexts)

    def assign(self, trajectories: Sequence[Trajectory], scores: Scores) -> list[TokenCredit]:
        """What the loss needs, by trajectory.

        Raises:
            ValueError: the algorithm gives something else than an advantage for each action token.
        """
        spans = [state_spans(t, self.decode, self.tag) for t in trajectories]
        states = [state_mask(t, s) for t, s in zip(trajectories, spans, strict=True)]
        advantages, returns, values = ([torch.zeros(len(state)) for state in states] for _ in range(3))
        credited = [torch.zeros_like(state) for state in states]
        chosen = [i for i in sound(trajectories, self.algorithm.relative) if _finite(scores, i)]
        if chosen:
            played = self._played([trajectories[i] for i in chosen], [spans[i] for i in chosen], _pick(scores, chosen))
            credit = self.algorithm.give_credit(played, self.settings)
            for place, i in enumerate(chosen):
                advantages[i], credited[i] = credit.advantages[place], torch.ones_like(states[i])
                returns[i] = returns[i] if credit.returns is None else credit.returns[place]
        chosen = [i for i in chosen if not self.masks(trajectories[i])]
        for i in set(range(len(trajectories))) - set(chosen):
            advantages[i], credited[i] = torch.zeros_like(advantages[i]), torch.zeros_like(states[i])
        if self.algorithm.whiten:  # whatever this rank holds: the others wait for its sums
            self._whiten(advantages, chosen)
        known = zip(advantages, states, scores.get("values", values), returns, credited, strict=True)
        return [TokenCredit(*each) for each in known]

    def masks(self, trajectory: Trajectory) -> bool:
        """Whether a trajectory is left out of the loss for the way it ended."""
        return self.settings.mask_overlong and unended(trajectory)

    def divergence_numbers(self, trajectories: Sequence[Trajectory], scores: Scores) -> dict[str, float]:
        """``train/kl_reference``: the mean divergence from the reference per action token of all ranks, in nats, before
        the update; nothing where the reference was not scored."""
        if "reference" not in scores:
            return {}
        pairs = list(zip(_old_logprobs(trajectories, scores), scores["reference"], strict=True))
        total = sum((kl_penalty(*pair, self.kl_estimator).double().sum() for pair in pairs), torch.zeros(()).double())
        count = torch.tensor(float(sum(len(old) for old, _ in pairs)), dtype=torch.float64)
        divergence, num_tokens = self.total(torch.stack([total, count])).tolist()
        return {"train/kl_reference": divergence / max(num_tokens, 1.0)}

    def state_end(self, ids: Sequence[int]) -> int:
        """How many of a turn's action ids are its internal state with its tags, see `internal_state.state_end`."""
        return state_end(ids, self.decode, self.tag)

    def _played(
        self, trajectories: Sequence[Trajectory], spans: Sequence[Sequence[tuple[int, int]]], scores: Scores
    ) -> GroupedRollouts:
        rewards = None
        if self.shaping.on:
            lengths = [[end - start for start, end in turns] for turns in spans]
            rewards = shaped_rewards(trajectories, lengths, self.shaping, self.max_new_tokens, self.contexts)
        penalties = None
        if self.kl_coef:
            penalties = [
                self.kl_coef * kl_penalty(old, reference, self.kl_estimator)
                for old, reference in zip(_old_logprobs(trajectories, scores), scores["reference"], strict=True)
            ]
        needed = self.algorithm.segments or self.settings.rewrites == "segments"
        parts = [segments(self.contexts.of(t)) for t in trajectories] if needed else None
        anchor = self.settings.anchor
        return GroupedRollouts.of(trajectories, rewards, penalties, scores.get("values"), anchor, parts)

    def _whiten(self, advantages: list[Tensor], chosen: Sequence[int]) -> None:
        """In place, over the tokens of the trajectories that credit was given to."""
        flat = torch.cat([advantages[i] for i in chosen]) if chosen else torch.zeros(0)
        parts = whiten(flat, self.total).split([len(advantages[i]) for i in chosen])
        for i, part in zip(chosen, parts, strict=False):
            advantages[i] = part


def check_group_size(group_size: int | None, name: str, assigner: CreditAssigner) -> None:
    """Raise ValueError when an algorithm compares the episodes of a task, and there is one of each.

    Args:
        group_size: Episodes of each task; None where nobody says.
        name: The algorithm's, for the error.
        assigner: Its settings.
    """
    algorithm = assigner.algorithm
    best_of = algorithm.likelihood and assigner.settings.threshold is None
    if group_size == 1 and (algorithm.relative or best_of):
        raise ValueError(
            f"nothing to compare: expected data.group_size 2 or more, since {name} compares the episodes of a task, "
            "got 1; raise it or set model.algorithm reinforce_pp or ppo"
        )


def _old_logprobs(trajectories: Sequence[Trajectory], scores: Scores) -> Sequence[Tensor]:
    """(T,) by trajectory, before the update: the trainer's own where the rollout's are not trusted."""
    return scores["old"] if "old" in scores else [torch.tensor(t.action_logprobs) for t in trajectories]


def _finite(scores: Scores, number: int) -> bool:
    return all(bool(torch.isfinite(scored[number]).all()) for scored in scores.values())


def _pick(scores: Scores, chosen: Sequence[int]) -> dict[str, list[Tensor]]:
    return {name: [scored[i] for i in chosen] for name, scored in scores.items()}
