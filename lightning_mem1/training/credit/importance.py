"""Corrections for an engine that is off: importance weights from the trainer's own log-probabilities.

An engine of another precision or kernel, a quantised one, or one with stale weights samples from another policy than
the one that trains. Without a correction the clipped loss takes the engine's word for the old policy, so its ratio
undoes the gap by itself, but only as far as the clip lets it: a token that the gap alone puts outside the clip range
teaches nothing (``train/ratio_outside_clip`` says how many). A correction takes the two apart::

    policy / old      how far training has moved: clipped, as in PPO; old is the trainer's own before the update
    old / rollout     how far the engine is off: a constant weight on the token, held in by `cap`

The local engine in float32 is exact, and needs none of this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lightning_mem1.training.credit.settings import MismatchSettings
from lightning_mem1.training.credit.token_credit import TokenCredit
from lightning_mem1.training.losses import MAX_LOG_RATIO
from lightning_mem1.types import Trajectory


def importance_weights(
    old: Tensor, rollout: Tensor, lengths: Sequence[int], settings: MismatchSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of one trajectory's action tokens.

    ``tis`` is min(r, cap) (Yao et al., "Your efficient RL framework secretly brings you off-policy RL training", 2025).
    ``mis`` is r where 1/cap <= r <= cap, else 0 (IcePop, arXiv 2510.18855; without the lower bound: Liu, Li et al.,
    "When speed kills stability", 2025). A dropped token still counts in the mean of the loss. A ratio that is no number
    (the engine's log-prob was none) counts as held back and weighs 0::

        cap 2      ratio   0.4   0.8   2.5   nan
        tis                0.4   0.8   2.0   0        held back: the last two
        mis                0     0.8   0     0        held back: all but the second

    Args:
        old: (T,) log-probabilities under the trainer's policy before the update, in nats.
        rollout: (T,) the same as the engine reported them.
        lengths: Action tokens of each turn; they add up to T.
        settings: Correction, cap and level.

    Returns:
        Weights (T,), ratios (T,) before cap and mask, and (T,) True where cap or mask held the ratio back.
    """
    moved = old - rollout
    if settings.level != "token" and len(moved):
        parts = list(lengths) if settings.level == "turn" else [sum(lengths)]
        sums = torch.stack([part.sum() for part in moved.split(parts)])
        moved = sums.repeat_interleave(torch.tensor(parts))
    ratio = moved.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    if settings.correction == "mis":
        inside = (ratio >= 1 / settings.cap) & (ratio <= settings.cap)
        return torch.where(inside, ratio, 0.0), ratio, ~inside
    return ratio.clamp(max=settings.cap).nan_to_num(0.0), ratio, ~(ratio <= settings.cap)


def corrected(
    credit: Sequence[TokenCredit],
    trajectories: Sequence[Trajectory],
    scores: Mapping[str, Sequence[Tensor]],
    settings: MismatchSettings,
) -> tuple[list[TokenCredit], Tensor]:
    """Credit with the trainer's old policy and the weights against the engine's; as it is without a correction.

    Args:
        credit: By trajectory.
        trajectories: What the engine sampled.
        scores: ``old``: (T,) log-probabilities by trajectory, when there is a correction.
        settings: Correction, cap and level.

    Returns:
        TokenCredit by trajectory, and (3,) float64 sums over action tokens: ratios, tokens held back, tokens.
    """
    sums = torch.zeros(3, dtype=torch.float64)
    if not settings.on:
        return list(credit), sums
    found = []
    for each, trajectory, old in zip(credit, trajectories, scores["old"], strict=True):
        lengths = [len(turn.action_ids) for turn in trajectory.turns]
        rollout = torch.tensor(trajectory.action_logprobs)
        weights, ratio, held = importance_weights(old, rollout, lengths, settings)
        found.append(replace(each, old_logprobs=old, correction=weights))
        sums += torch.stack([ratio.double().sum(), held.double().sum(), torch.tensor(float(len(ratio))).double()])
    return found, sums


def correction_numbers(sums: Tensor, settings: MismatchSettings, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """What to log of a correction, over all ranks (`total` adds a tensor up over them); nothing without one."""
    if not settings.on:
        return {}
    ratio, held, count = total(sums).tolist()
    name = "is_truncated" if settings.correction == "tis" else "is_masked"
    return {"train/is_ratio_mean": ratio / max(count, 1.0), f"train/{name}": held / max(count, 1.0)}
