"""Statistics of an update: gathered per forward pass, added up over passes and ranks, averaged over optimizer steps.

What `Mem1Module` logs by rl_step, under ``train/``; a kind of token is ``state`` or ``action``, the rest of a turn:

- ``loss`` (raft: in nats per action token that is imitated), ``grad_norm`` (before clipping), ``lr``
- ``clip_fraction`` (0-1), ``approx_kl`` and ``entropy`` (nats per action token), ``entropy_<kind>``
- ``kl_reference`` (nats per action token): divergence from the base policy, with `loss.kl_coef`
- ``rollout_gap_mean``, ``rollout_gap_max``, ``rollout_gap_p99`` (nats; the last at most 12% too large): the size of
  log p in training minus log p in the rollout, before the first update of the rl_step, of what trains, or of one
  trajectory where no group has a signal
- ``rollout_gap_turn_<k>`` (nats): its mean over turn k, from 0, memory turns counted too; ``rollout_gap_<kind>``
- ``ratio_outside_clip`` (0-1): tokens whose ratio to the rollout leaves the clip range before the first update
- ``is_ratio_mean``: with `mismatch.correction`, mean of old / rollout before the cap, 1 for an exact engine;
  ``is_truncated`` or ``is_masked`` (0-1): tokens that it holds back
- ``gradient_share_state`` (0-1): of the policy loss's derivatives by the log-probabilities, in absolute value, the
  share on internal-state tokens; where the loss pulls, not how far the weights follow
- ``value_loss`` (squared units of reward, halved), ``value_mean`` (reward), ``value_explained_variance`` (of the
  returns, at most 1) and ``critic_grad_norm`` (before clipping): of a critic, the middle two before the update
- ``skipped_updates`` (count): optimizer steps not taken because of a number that is not finite
- ``drift`` (turns whose context is not what was sampled from): stays 0
- ``zero_signal_groups``, ``bad_rewards``, ``bad_values``, ``empty_trajectories``, ``lone_groups``, ``overlong_turns``
  and ``kept_trajectories`` (what raft imitates): counts, see `credit.filters`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

SUMMED = ("loss", "clip_fraction", "approx_kl", "entropy", "kl_reference", "weight", "gap", "tokens")
MIN_VARIANCE = 1e-12  # below it returns are equal but for rounding
MAX_TURNS_SHOWN = 32  # later turns count as the last one
KINDS = ("action", "state")  # what an action token may belong to: the internal state, or everything else in a turn
BY_KIND = ("tokens", "entropy", "gap", "pull")  # summed per kind
BINS, BINS_PER_DECADE, FIRST_BIN = 200, 20, 1e-8  # of the gap's histogram, in nats: 1e-8 to 100, each 12% wide
SIZES = (len(SUMMED), MAX_TURNS_SHOWN, MAX_TURNS_SHOWN, len(KINDS) * len(BY_KIND), 1, BINS)


@dataclass(frozen=True)
class UpdateStats:
    """What forward passes add up to, on the CPU.

    Attributes:
        sums: (sum(SIZES),) the sums by name; the gap and the number of tokens by turn; sums per kind of token; tokens
            whose ratio to the rollout lies outside the clip range; a histogram of the gap.
        gap_max: (1,) largest |log p in training - log p in the rollout|, in nats.
    """

    sums: Tensor
    gap_max: Tensor

    @classmethod
    def empty(cls) -> UpdateStats:
        """No pass at all."""
        return cls(torch.zeros(sum(SIZES)), torch.zeros(1))

    @classmethod
    def of(
        cls, parts: Sequence[Tensor], gap: Tensor, turn_index: Tensor, tokens: Mapping[str, Tensor] | None = None
    ) -> UpdateStats:
        """One pass.

        Args:
            parts: Scalars, the first of `SUMMED`: loss to weight.
            gap: (N,) difference of the log-probabilities of each action token, in nats.
            turn_index: (N,) the turn it belongs to.
            tokens: (N,) more about each: ``is_state``, ``entropy``, ``pull`` (see `losses`) and ``outside`` (the ratio
                to the rollout lies outside the clip range); None for none.
        """
        gap = gap.detach().float().cpu()
        turns = turn_index.cpu().clamp(max=MAX_TURNS_SHOWN - 1)
        scalars = torch.stack(
            [*(part.detach().float().cpu() for part in parts), gap.sum(), torch.tensor(float(len(gap)))]
        )
        by_turn = torch.zeros(MAX_TURNS_SHOWN).index_add(0, turns, gap)
        counts = turns.bincount(minlength=MAX_TURNS_SHOWN).float()
        return cls(torch.cat([scalars, by_turn, counts, _by_kind(gap, tokens), _histogram(gap)]), gap.max()[None])

    def __add__(self, other: UpdateStats) -> UpdateStats:
        return UpdateStats(self.sums + other.sums, torch.maximum(self.gap_max, other.gap_max))

    def reduced(self, reduce: Callable[[Tensor, str], Tensor]) -> UpdateStats:
        """Over all ranks; `reduce` takes a tensor and "sum" or "max"."""
        return UpdateStats(reduce(self.sums, "sum"), reduce(self.gap_max, "max"))

    def named(self) -> dict[str, float]:
        """The sums by name, ``gap_max``, ``gap_turn_<k>``: the mean gap of the turns that were scored; ``gap_p99``,
        ``outside``, and ``<sum>_<kind>`` for the kinds of token that were scored."""
        scalars, gaps, tokens, kinds, outside, histogram = self.sums.split(SIZES)
        turns = {f"gap_turn_{k}": float(gaps[k] / tokens[k]) for k in tokens.nonzero()[:, 0].tolist()}
        return {
            **dict(zip(SUMMED, scalars.tolist(), strict=True)),
            "gap_max": float(self.gap_max),
            **turns,
            "gap_p99": _quantile(histogram, 0.99),
            "outside": float(outside),
            **{
                f"{name}_{kind}": number
                for kind, row in zip(KINDS, kinds.view(len(KINDS), -1).tolist(), strict=True)
                for name, number in zip(BY_KIND, row, strict=True)
                if row[0]
            },
        }


def _by_kind(gap: Tensor, tokens: Mapping[str, Tensor] | None) -> Tensor:
    """Sums per kind, kind after kind, and the number of tokens outside the clip range."""
    if tokens is None:
        return torch.zeros(len(KINDS) * len(BY_KIND) + 1)
    known = {name: tensor.detach().float().cpu() for name, tensor in tokens.items()}
    columns = torch.stack([torch.ones_like(gap), known["entropy"], gap, known["pull"]], dim=1)
    state = known["is_state"].bool()
    return torch.cat([columns[~state].sum(0), columns[state].sum(0), known["outside"].sum()[None]])


def _histogram(gap: Tensor) -> Tensor:
    """(BINS,) how many gaps lie in each bin; what is beyond the ends, or no number, counts in the last one."""
    place = (gap.clamp(min=FIRST_BIN) / FIRST_BIN).log10() * BINS_PER_DECADE
    return place.nan_to_num(BINS, BINS).clamp(0, BINS - 1).long().bincount(minlength=BINS).float()


def _quantile(histogram: Tensor, share: float) -> float:
    """The upper end of the bin in which the quantile lies: at most 12% too large."""
    if not histogram.sum():
        return math.nan
    place = int((histogram.cumsum(0) < share * histogram.sum()).sum())
    return float(FIRST_BIN * 10 ** ((place + 1) / BINS_PER_DECADE))


def step_numbers(steps: Sequence[dict[str, float]], measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What to log of the optimizer steps of an rl_step.

    Args:
        steps: Of each, what `Learner.step` returns.
        measure: Gives the sums of trajectories that are scored and not learnt from, for where no step scored any.
    """
    scored = [step for step in steps if step["tokens"]]  # the others changed nothing, so the first is still exact
    first = scored[0] if scored else measure()
    return {
        **mean_over_steps(scored),
        **critic_means(steps),
        **rollout_gap(first),
        **mismatch(first),
        "train/skipped_updates": sum(step["skipped"] for step in steps),
    }


def mean_over_steps(scored: Sequence[dict[str, float]]) -> dict[str, float]:
    """Average the optimizer steps of an rl_step; per-token numbers are over the tokens that were scored."""
    if not scored:
        return {"train/loss": 0.0, "train/grad_norm": 0.0}
    metrics = {f"train/{key}": fmean(step[key] for step in scored) for key in ("loss", "grad_norm")}
    for key in ("clip_fraction", "approx_kl", "entropy", "kl_reference"):
        metrics[f"train/{key}"] = fmean(step[key] / step["weight"] for step in scored)
    for kind in KINDS:
        found = [step for step in scored if step.get(f"tokens_{kind}")]
        if found:
            metrics[f"train/entropy_{kind}"] = fmean(s[f"entropy_{kind}"] / s[f"tokens_{kind}"] for s in found)
    pulls = [(step.get("pull_state", 0.0), step.get("pull_action", 0.0)) for step in scored]
    if total := sum(map(sum, pulls)):
        metrics["train/gradient_share_state"] = sum(state for state, _ in pulls) / total
    return metrics


def critic_means(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average the optimizer steps in which the critic learnt; empty when there is none."""
    learnt = [step for step in steps if step.get("value_tokens")]
    return {f"train/{key}": fmean(step[key] for step in learnt) for key in ("value_loss", "critic_grad_norm") if learnt}


def value_numbers(values: Tensor, returns: Tensor, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """How good the critic was before an update: its mean, and the share of the returns' variance that it explains.

    ``1 - Var(returns - values) / Var(returns)``: 1 is a perfect critic, 0 one that is no better than a constant, below
    0 a worse one. Left out when all returns are equal, and everything when nothing was credited.

    ```
    returns 0 2    values 0 1    errors 0 1    1 - 0.25 / 1 = 0.75
    ```

    Args:
        values: (N,) of this rank's action tokens.
        returns: (N,) what they should have been.
        total: Adds a float64 tensor up over ranks.
    """
    wide = torch.stack([values, returns, returns - values]).double()
    count = torch.tensor([float(len(values))], dtype=torch.float64)
    sums = total(torch.cat([count, wide.sum(1)]))
    means = sums[1:] / sums[0].clamp(min=1)
    spread = total((wide - means[:, None]).square().sum(1)).tolist()
    if not sums[0]:
        return {}
    numbers = {"train/value_mean": float(means[0])}
    if spread[1] > MIN_VARIANCE * float(sums[0]):
        numbers["train/value_explained_variance"] = 1 - spread[2] / spread[1]
    return numbers


def rollout_gap(step: dict[str, float]) -> dict[str, float]:
    """The rollout gap of a step; later steps would compare with a policy that has already moved."""
    if not step["tokens"]:  # no episode took a turn
        return {"train/rollout_gap_mean": math.nan, "train/rollout_gap_max": math.nan}
    turns = {f"train/rollout_{key}": value for key, value in step.items() if key.startswith("gap_turn_")}
    return {"train/rollout_gap_mean": step["gap"] / step["tokens"], "train/rollout_gap_max": step["gap_max"], **turns}


def mismatch(step: dict[str, float]) -> dict[str, float]:
    """How far training and rollout are apart, beyond `rollout_gap`: 99th percentile, by kind, ratios out of range."""
    if not step["tokens"]:
        return {}
    kinds = {
        f"train/rollout_gap_{kind}": step[f"gap_{kind}"] / step[f"tokens_{kind}"]
        for kind in KINDS
        if step.get(f"tokens_{kind}")
    }
    outside = step["outside"] / step["tokens"]
    return {"train/rollout_gap_p99": step["gap_p99"], "train/ratio_outside_clip": outside, **kinds}
