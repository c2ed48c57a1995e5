"""Advantages: how much better a trajectory did than expected, one number per trajectory.

Group-relative advantages compare the trajectories of one task with each other, so they need no critic. A group whose
rewards are all equal teaches nothing: its advantages are exactly zero, whatever rounding makes of its mean.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Scale = Literal["std", "none"]


def group_relative(rewards: Tensor, groups: Tensor, scale: Scale = "std", eps: float = 1e-6) -> Tensor:
    """Reward minus the mean of its group, divided by the group's standard deviation or not.

    ``scale="std"`` is GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1.2) with the sample deviation (divisor n - 1);
    ``scale="none"`` is Dr. GRPO (arXiv 2503.20783), which does not divide, so that easy and hard tasks do not weigh
    more than the rest. A trajectory alone in its group has nobody to be compared with and keeps its raw reward.

    ```
    rewards  1  0  0  |  2  2  |  5           groups  0  0  0  |  1  1  |  2
    mean        1/3   |   2    |  -
    "none"   2/3 -1/3 -1/3  |  0  0  |  5
    "std"    1.155 -0.577 -0.577  |  0  0  |  5      (deviation of the first group: sqrt(1/3))
    ```

    Args:
        rewards: (B,) reward of each trajectory.
        groups: (B,) number of each trajectory's group, in any order; trajectories of the same task share one.
        scale: ``"std"`` or ``"none"``.
        eps: Added to the deviation, in units of reward.

    Returns:
        (B,) advantages, in the dtype of `rewards` (float32 when those are integers).

    Raises:
        ValueError: Shapes differ, a reward is not finite, or `scale` is unknown.
    """
    _check(rewards, groups, scale)
    dtype = rewards.dtype if rewards.is_floating_point() else torch.float32
    advantages = rewards.to(dtype).clone()
    for group in groups.unique():
        members = groups == group
        if int(members.sum()) > 1:
            advantages[members] = _compare(advantages[members], scale, eps)
    return advantages


def _compare(rewards: Tensor, scale: Scale, eps: float) -> Tensor:
    """Advantages within one group of at least two."""
    if rewards.max() == rewards.min():  # the mean of equal numbers may differ from them by a rounding error
        return torch.zeros_like(rewards)
    centred = rewards - rewards.mean()
    return centred / (rewards.std() + eps) if scale == "std" else centred


def _check(rewards: Tensor, groups: Tensor, scale: str) -> None:
    if rewards.ndim != 1 or rewards.shape != groups.shape:
        raise ValueError(
            "rewards and groups must hold one number per trajectory: "
            f"expected two tensors of shape (B,), got {tuple(rewards.shape)} and {tuple(groups.shape)}"
        )
    if scale not in ("std", "none"):
        raise ValueError(f"advantage scale must be 'std' or 'none', got {scale!r}")
    bad = (~torch.isfinite(rewards)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"the reward of trajectory {bad[0]} must be a finite number, got {rewards[bad[0]].item()} "
            f"({len(bad)} of {len(rewards)} are not finite): look at what its environment returned"
        )
