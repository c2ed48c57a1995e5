"""What a trajectory cost and how it did: pure functions of its lengths, and torchmetrics shells that average them.

Every shell reports over *all* trajectories, failed ones included, and declares how its states add up across processes.
With nothing to report its value is nan, never a flattering zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

MAX_TURNS_AVERAGED = 32  # later turns have no mean of their own


def peak_tokens(context_lengths: Sequence[int], action_lengths: Sequence[int], prompt_length: int = 0) -> int:
    """Largest number of tokens in the model's window when a turn ends; 0 without turns.

    ``max_t (n_p + n_o)`` with n_p the context tokens and n_o the generated tokens of turn t.

    Args:
        context_lengths: Tokens that the policy saw in each turn, the prompt included.
        action_lengths: Tokens that it generated in each turn.
        prompt_length: Tokens to leave out of the count; the paper's tables leave out the prompt.

    Raises:
        ValueError: The two do not have one entry per turn.
    """
    turns = _turns(context_lengths, action_lengths)
    return max((context + action - prompt_length for context, action in turns), default=0)


def dependency(context_lengths: Sequence[int], action_lengths: Sequence[int]) -> float:
    """Area under causal attention, in pairs of tokens: ``sum_t (2 n_p + n_o) n_o / 2`` (arXiv 2506.15841, section 4).

    Each of the n_o generated tokens looks at the n_p context tokens and on average at half of its own turn. The paper's
    text as transcribed has n_p and n_o swapped; this is the form whose picture it draws.

    ```
    context 10, action 4:  4 rows of 10, and half a square of 4 x 4  ->  (2 * 10 + 4) * 4 / 2 = 48
    ```

    Args:
        context_lengths: Tokens that the policy saw in each turn, the prompt included.
        action_lengths: Tokens that it generated in each turn.

    Raises:
        ValueError: The two do not have one entry per turn.
    """
    return sum((2 * context + action) * action / 2 for context, action in _turns(context_lengths, action_lengths))


def growth_per_turn(lengths: Sequence[float]) -> float:
    """Slope of a straight line through one length per turn (least squares), in tokens per turn.

    0 means constant memory. A single turn, or none, has no slope: 0.0.
    """
    if len(lengths) < 2:
        return 0.0
    middle, mean = (len(lengths) - 1) / 2, sum(lengths) / len(lengths)
    offsets = [turn - middle for turn in range(len(lengths))]
    covariance = sum(offset * (length - mean) for offset, length in zip(offsets, lengths, strict=True))
    return covariance / sum(offset * offset for offset in offsets)


class TrajectoryMean(Metric):
    """Mean of one number per trajectory, in the unit of that number: reward, success, turns, seconds."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, values: Sequence[float]) -> None:
        """Add one number per trajectory."""
        self.total += sum(values)
        self.count += len(values)

    def compute(self) -> Any:
        """The mean (scalar)."""
        return self.total / self.count


class TrajectorySpread(TrajectoryMean):
    """Mean and maximum of one number per trajectory.

    Keys of its value: ``mean`` and ``max``, in the unit of that number.
    """

    largest: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("largest", torch.tensor(-torch.inf), dist_reduce_fx="max")

    def update(self, values: Sequence[float]) -> None:
        """Add one number per trajectory."""
        super().update(values)
        if len(values):
            self.largest = self.largest.clamp(min=float(max(values)))

    def compute(self) -> dict[str, Tensor]:
        """Mean and maximum (scalars)."""
        largest = torch.where(self.count > 0, self.largest, torch.nan)
        return {"mean": super().compute(), "max": largest}


class PeakTokens(TrajectorySpread):
    """`peak_tokens` over trajectories.

    Keys of its value: ``mean`` and ``max``, both in tokens.
    """


class AnswerScores(Metric):
    """Exact match and F1 over tasks of several objectives.

    Keys of its value: ``em`` and ``f1``, the mean over tasks of the sum over objectives (arXiv 2506.15841, table 1),
    and ``em_mean`` and ``f1_mean``, the mean over all objectives, in [0, 1].
    """

    full_state_update = False
    em: Tensor
    f1: Tensor
    num_tasks: Tensor
    num_objectives: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("em", "f1", "num_tasks", "num_objectives"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, em: Sequence[float], f1: Sequence[float], num_objectives: Sequence[float]) -> None:
        """Add tasks, each as its summed scores and its number of objectives."""
        self.em += sum(em)
        self.f1 += sum(f1)
        self.num_tasks += len(num_objectives)
        self.num_objectives += sum(num_objectives)

    def compute(self) -> dict[str, Tensor]:
        """Sums per task and means per objective (scalars)."""
        return {
            "em": self.em / self.num_tasks,
            "f1": self.f1 / self.num_tasks,
            "em_mean": self.em / self.num_objectives,
            "f1_mean": self.f1 / self.num_objectives,
        }


class InternalStateTokens(Metric):
    """Length of the internal state that the policy writes, turn by turn.

    Keys of its value: ``mean`` and ``max`` over all turns, in tokens, and ``growth``, the mean over trajectories of
    `growth_per_turn`, in tokens per turn. A memory that swells shows in ``growth`` long before it shows in ``max``.
    """

    full_state_update = False
    total: Tensor
    num_turns: Tensor
    largest: Tensor
    total_growth: Tensor
    num_trajectories: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("total", "num_turns", "total_growth", "num_trajectories"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("largest", torch.tensor(-torch.inf), dist_reduce_fx="max")

    def update(self, lengths: Sequence[Sequence[float]]) -> None:
        """Add trajectories, each as one length per turn; those without turns are left out."""
        for turns in filter(len, lengths):
            self.total += sum(turns)
            self.num_turns += len(turns)
            self.largest = self.largest.clamp(min=float(max(turns)))
            self.total_growth += growth_per_turn(turns)
            self.num_trajectories += 1

    def compute(self) -> dict[str, Tensor]:
        """Mean, maximum and growth (scalars)."""
        return {
            "mean": self.total / self.num_turns,
            "max": torch.where(self.num_turns > 0, self.largest, torch.nan),
            "growth": self.total_growth / self.num_trajectories,
        }


class ContextByTurn(Metric):
    """Mean context length by turn index, in tokens: a flat line is constant memory.

    Its value is a dict from turn index to mean, for the turns that happened, up to `MAX_TURNS_AVERAGED`.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros(MAX_TURNS_AVERAGED), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(MAX_TURNS_AVERAGED), dist_reduce_fx="sum")

    def update(self, lengths: Sequence[Sequence[float]]) -> None:
        """Add trajectories, each as one context length per turn."""
        for turns in lengths:
            averaged = torch.tensor([float(n) for n in turns[:MAX_TURNS_AVERAGED]]).to(self.total)
            self.total[: len(averaged)] += averaged
            self.count[: len(averaged)] += 1

    def compute(self) -> dict[int, float]:
        """Mean by turn index."""
        return {k: float(self.total[k] / self.count[k]) for k in range(MAX_TURNS_AVERAGED) if self.count[k]}


def _turns(context_lengths: Sequence[int], action_lengths: Sequence[int]) -> list[tuple[int, int]]:
    if len(context_lengths) != len(action_lengths):
        raise ValueError(
            "context and action lengths must have one entry per turn: "
            f"got {len(context_lengths)} contexts and {len(action_lengths)} actions"
        )
    return list(zip(context_lengths, action_lengths, strict=True))
