"""Advantages: how much better something did than expected, as pure functions of rewards (and values).

Group-relative advantages compare the trajectories of one task with each other, so they need no critic. A group whose
rewards are all equal teaches nothing: its advantages are exactly zero, whatever rounding makes of its mean.
`algorithms` says which algorithm uses which function.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from lightning_mem1.training.credit.settings import Scale

MIN_VARIANCE = 1e-12  # below it numbers are equal but for rounding
ROUNDING = 4 * torch.finfo(torch.float32).eps  # of the largest of some rewards: less apart they are equal


def group_relative(rewards: Tensor, groups: Tensor, scale: Scale = "std", eps: float = 1e-6) -> Tensor:
    """Reward minus the mean of its group, divided by the group's standard deviation or not.

    ``scale="std"`` is GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1.2) with the sample deviation (divisor n - 1);
    ``scale="none"`` is Dr. GRPO (arXiv 2503.20783), which does not divide, so that easy and hard tasks do not weigh
    more than the rest. A trajectory alone in its group has no baseline and keeps its raw reward.

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


def penalised(rewards: Tensor, costs: Tensor, groups: Tensor) -> Tensor:
    """Rewards with their costs taken off, but in groups whose rewards are all equal.

    Costs that come of log-probabilities differ by rounding. Where nothing else differs, dividing by a deviation would
    make advantages of that; a group without a signal has to stay one::

        rewards  1    1   |  1    0   |  1
        costs    0.1  0.2 |  0.1  0.2 |  0.3
                 1    1   |  0.9 -0.2 |  0.7

    Args:
        rewards: (B,) rewards.
        costs: (B,) what to take off.
        groups: (B,) what is compared with each other shares a number.

    Returns:
        (B,) in the dtype of `rewards`.
    """
    found = rewards - costs.to(rewards.dtype)
    for group in groups.unique():
        members = groups == group
        if int(members.sum()) > 1 and _are_equal(rewards[members]):
            found[members] = rewards[members]
    return found


def leave_one_out(rewards: Tensor, groups: Tensor) -> Tensor:
    """Reward minus the mean reward of the *others* of its group (RLOO, arXiv 2402.14740, section 3.2).

    A trajectory alone in its group has no others and keeps its raw reward.

    ```
    rewards  1  0  0  |  5           groups  0  0  0  |  2
    others   0 1/2 1/2|  -
             1 -1/2 -1/2 | 5
    ```

    Args, returns and errors as in `group_relative`.
    """
    centred = group_relative(rewards, groups, "none")
    sizes = (groups[:, None] == groups[None, :]).sum(1)
    return centred * torch.where(sizes > 1, sizes / (sizes - 1).clamp(min=1), 1.0)


def step_relative(returns: Tensor, anchors: Sequence[Hashable], scale: Scale = "std", eps: float = 1e-6) -> Tensor:
    """Return of a step compared with the steps taken in the same state (GiGPO, arXiv 2505.10978, section 4.2).

    ```
    anchor    shop  shop  shop  page        return  1  0  0  7
    "none"    2/3  -1/3  -1/3    0          a state that was visited once has no baseline and gets 0
    ```

    Args:
        returns: (S,) discounted return from each step on.
        anchors: S states; equal ones are compared with each other.
        scale: As in `group_relative`.
        eps: As in `group_relative`.

    Returns:
        (S,) advantages.
    """
    index = numbered(anchors)
    sizes = index.bincount(minlength=1)[index]
    return torch.where(sizes > 1, group_relative(returns, index, scale, eps), 0.0)


def numbered(anchors: Sequence[Hashable]) -> Tensor:
    """(S,) a number for each of S things, the same for equal ones: ``[shop, page, shop]`` gives ``[0, 1, 0]``."""
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(anchor, len(numbers)) for anchor in anchors], dtype=torch.long)


def returns_to_go(rewards: Tensor, gamma: float = 1.0) -> Tensor:
    """Discounted sum of the rewards from each step on: ``[1, 0, 2]`` with gamma 0.5 gives ``[1.5, 1, 2]``."""
    return gae(rewards, torch.zeros_like(rewards), gamma, 1.0)


def gae(rewards: Tensor, values: Tensor, gamma: float = 1.0, lam: float = 1.0, beyond: float = 0.0) -> Tensor:
    """Generalised advantage estimation (arXiv 1506.02438, equation 16) over a sequence of steps that ends an episode.

    ``delta_t = r_t + gamma V_{t+1} - V_t`` and ``A_t = delta_t + gamma lam A_{t+1}``; after the last step there is
    nothing, or `beyond`.

    The steps are the action tokens of a trajectory (or its turns) and nothing else: the last action token of a turn is
    followed by the first one of the next turn, across the memory rewrite between them::

        context of turn 0:  P A0 A0            values  V0 V1
        context of turn 1:  P a0 a0 I0 A1      values  V2          steps  V0 -> V1 -> V2

    Args:
        rewards: (T,) reward of each step.
        values: (T,) what the critic expects before each step.
        gamma: Discount per step.
        lam: Trace decay per step.
        beyond: What is still to come after the last step: 0 when the episode has ended there.

    Returns:
        (T,) advantages in the dtype of `rewards`; advantage plus value is the return.

    Raises:
        ValueError: the tensors do not align.
    """
    if rewards.ndim != 1 or rewards.shape != values.shape:
        raise ValueError(
            "values must align with rewards, one per step: "
            f"expected shape {tuple(rewards.shape)}, got {tuple(values.shape)}"
        )
    advantages, ahead, value_ahead = [], 0.0, beyond
    for reward, value in zip(reversed(rewards.double().tolist()), reversed(values.double().tolist()), strict=True):
        ahead = reward + gamma * value_ahead - value + gamma * lam * ahead
        value_ahead = value
        advantages.append(ahead)
    return torch.tensor(advantages[::-1], dtype=torch.float64).to(rewards.dtype)


def whiten(values: Tensor, total: Callable[[Tensor], Tensor] = lambda sums: sums, eps: float = 1e-8) -> Tensor:
    """Shift and scale to mean 0 and variance 1 (unbiased); numbers that are all equal become zeros.

    Args:
        values: (N,) numbers of this rank, action tokens only.
        total: Adds a float64 tensor up over ranks.
        eps: Added to the variance.

    Returns:
        (N,) in the dtype of `values`.
    """
    wide = values.double()
    count, summed = total(torch.stack([torch.tensor(float(len(wide)), dtype=torch.float64), wide.sum()])).tolist()
    centred = wide - summed / max(count, 1.0)
    variance = float(total(centred.square().sum()[None])) / max(count - 1, 1.0)
    if variance < MIN_VARIANCE:
        return torch.zeros_like(values)
    return (centred / (variance + eps) ** 0.5).to(values.dtype)


def best_of(rewards: Tensor, groups: Tensor, keep: int | None = 1, threshold: float | None = None) -> Tensor:
    """1 for the trajectories worth imitating, 0 for the others: the best of their group (RAFT, arXiv 2304.06767), or
    those with a reward of at least a threshold (rejection sampling), or what is both.

    Of equal rewards the first ones are taken. Without a threshold a group whose rewards are all equal has no best one::

        rewards                  0.2 0.9 0.9 0.5  |  0 0  |  1 1
        keep 1                    0   1   0   0   |  0 0  |  0 0
        threshold 0.5             0   1   1   1   |  0 0  |  1 1
        keep 1, threshold 0.5     0   1   0   0   |  0 0  |  1 0

    Args:
        rewards: (B,) reward of each trajectory.
        groups: (B,) number of each trajectory's group.
        keep: Most that are kept of a group; None for no limit.
        threshold: Least reward that is kept; None for any.

    Returns:
        (B,) float32.

    Raises:
        ValueError: Shapes differ or a reward is not finite.
    """
    _check(rewards, groups, "none")
    kept = torch.zeros(len(rewards))
    for group in groups.unique():
        members = (groups == group).nonzero().flatten()
        ranked = members[rewards[members].argsort(descending=True, stable=True)][:keep]
        if threshold is not None:
            kept[ranked[rewards[ranked] >= threshold]] = 1.0
        elif not _are_equal(rewards[members]):
            kept[ranked] = 1.0
    return kept


def _compare(rewards: Tensor, scale: Scale, eps: float) -> Tensor:
    """Advantages within one group of at least two."""
    if _are_equal(rewards):  # the mean of equal numbers may differ from them by a rounding error
        return torch.zeros_like(rewards)
    centred = rewards - rewards.mean()
    return centred / (rewards.std() + eps) if scale == "std" else centred


def _are_equal(rewards: Tensor) -> bool:
    """Whether some rewards are all equal, but for rounding in float32."""
    return bool(rewards.max() - rewards.min() <= ROUNDING * rewards.abs().max())


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
