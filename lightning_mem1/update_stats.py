"""Statistics of an update: gathered per forward pass, added up over passes and ranks, averaged over optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

SUMMED = ("loss", "clip_fraction", "approx_kl", "entropy", "kl_reference", "weight", "gap", "tokens")
MAX_TURNS_SHOWN = 32  # later turns count as the last one


@dataclass(frozen=True)
class PassStats:
    """What forward passes add up to, on the CPU.

    Attributes:
        sums: (len(SUMMED) + 2 * MAX_TURNS_SHOWN,) the sums by name, then the gap and the number of tokens by turn.
        gap_max: (1,) largest |log p in training - log p in the rollout|, in nats.
    """

    sums: Tensor
    gap_max: Tensor

    @classmethod
    def empty(cls) -> PassStats:
        """No pass at all."""
        return cls(torch.zeros(len(SUMMED) + 2 * MAX_TURNS_SHOWN), torch.zeros(1))

    @classmethod
    def of(cls, parts: Sequence[Tensor], gap: Tensor, turn_index: Tensor) -> PassStats:
        """One pass.

        Args:
            parts: Scalars, the first of `SUMMED`: loss to weight.
            gap: (N,) difference of the log-probabilities of each action token, in nats.
            turn_index: (N,) the turn it belongs to.
        """
        gap = gap.detach().float().cpu()
        turns = turn_index.cpu().clamp(max=MAX_TURNS_SHOWN - 1)
        scalars = torch.stack(
            [*(part.detach().float().cpu() for part in parts), gap.sum(), torch.tensor(float(len(gap)))]
        )
        by_turn = torch.zeros(MAX_TURNS_SHOWN).index_add(0, turns, gap)
        return cls(torch.cat([scalars, by_turn, turns.bincount(minlength=MAX_TURNS_SHOWN).float()]), gap.max()[None])

    def __add__(self, other: PassStats) -> PassStats:
        return PassStats(self.sums + other.sums, torch.maximum(self.gap_max, other.gap_max))

    def reduced(self, reduce: Callable[[Tensor, str], Tensor]) -> PassStats:
        """Over all ranks; `reduce` takes a tensor and "sum" or "max"."""
        return PassStats(reduce(self.sums, "sum"), reduce(self.gap_max, "max"))

    def named(self) -> dict[str, float]:
        """The sums by name, ``gap_max``, and ``gap_turn_<k>``: the mean gap of the turns that were scored."""
        scalars, gaps, tokens = self.sums.split([len(SUMMED), MAX_TURNS_SHOWN, MAX_TURNS_SHOWN])
        turns = {f"gap_turn_{k}": float(gaps[k] / tokens[k]) for k in tokens.nonzero()[:, 0].tolist()}
        return {**dict(zip(SUMMED, scalars.tolist(), strict=True)), "gap_max": float(self.gap_max), **turns}


def mean_over_steps(scored: Sequence[dict[str, float]]) -> dict[str, float]:
    """Average the optimizer steps of an rl_step; per-token numbers are over the tokens that were scored."""
    if not scored:
        return {"train/loss": 0.0, "train/grad_norm": 0.0}
    metrics = {f"train/{key}": fmean(step[key] for step in scored) for key in ("loss", "grad_norm")}
    for key in ("clip_fraction", "approx_kl", "entropy", "kl_reference"):
        metrics[f"train/{key}"] = fmean(step[key] / step["weight"] for step in scored)
    return metrics


def rollout_gap(step: dict[str, float]) -> dict[str, float]:
    """The rollout gap of a step; later steps would compare with a policy that has already moved."""
    if not step["tokens"]:  # no episode took a turn
        return {"train/rollout_gap_mean": math.nan, "train/rollout_gap_max": math.nan}
    turns = {f"train/rollout_{key}": value for key, value in step.items() if key.startswith("gap_turn_")}
    return {"train/rollout_gap_mean": step["gap"] / step["tokens"], "train/rollout_gap_max": step["gap_max"], **turns}
