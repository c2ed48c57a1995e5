"""Losses over action tokens: the clipped policy and value loss, imitation, token weights, KL penalty and entropy.

Every tensor is (N,), one entry per action token: prompts, copies and information never get here. A loss is a weighted
sum, not a mean. The weights are normalised over the whole batch of an update, so the losses and the statistics of its
micro-batches add up to the same numbers however the batch is split.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_mem1.training.choices import KLEstimator, Unit

MAX_LOG_RATIO = 20.0  # exp(20) = 5e8: far beyond any clip, and finite in float32


def clipped_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    weights: Tensor,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
    sequence_index: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's clipped surrogate (arXiv 1707.06347, equation 7), negated so that it is minimised.

    ``loss = sum_i w_i * max(-A_i r_i, -A_i clip(r_i, 1 - epsilon, 1 + epsilon_high))`` with
    ``r_i = exp(logprobs_i - old_logprobs_i)``. A larger `epsilon_high` is DAPO's "clip higher" (arXiv 2503.14476).

    Args:
        logprobs: (N,) log-probabilities under the policy that is trained, in nats.
        old_logprobs: (N,) the same tokens under the policy that sampled them.
        advantages: (N,) advantage of each token.
        weights: (N,) weight of each token, see `token_weights`.
        epsilon: How far below 1 the ratio may go.
        epsilon_high: How far above 1 the ratio may go; None for `epsilon`.
        sequence_index: (N,) number of the sequence a token belongs to: its ratio is then the sequence's own, the
            geometric mean of those of its tokens (GSPO, arXiv 2507.18071, equation 6). None for a ratio per token.

    Returns:
        The loss (scalar) and statistics (detached scalars). Two add up over micro-batches: ``clip_fraction``, the
        weight of the tokens that the clip holds back, and ``approx_kl``, the weighted mean of old minus new
        log-probability in nats. Of ``ratio_max``, the largest ratio, take the maximum. ``pull`` (N,) is the size of the
        loss's derivative by each log-probability (for a sequence ratio: by its logarithm, shared between its tokens).

    Raises:
        ValueError: The tensors do not align.
    """
    _check_aligned(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, weights=weights)
    log_ratio = logprobs - old_logprobs
    moved = log_ratio if sequence_index is None else _mean_of_sequence(log_ratio, sequence_index)
    ratio = moved.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    clipped = ratio.clamp(1 - epsilon, 1 + (epsilon if epsilon_high is None else epsilon_high))
    free_loss, clipped_loss = -advantages * ratio, -advantages * clipped
    stats = {
        "clip_fraction": (weights * (clipped_loss > free_loss)).sum().detach(),
        "approx_kl": -(weights * log_ratio).sum().detach(),
        "ratio_max": ratio.detach().max() if len(ratio) else ratio.new_zeros(()),
        "pull": (weights * advantages * ratio).abs().where(clipped_loss <= free_loss, 0.0).detach(),
    }
    return (weights * torch.maximum(free_loss, clipped_loss)).sum(), stats


def likelihood_loss(
    logprobs: Tensor, old_logprobs: Tensor, credit: Tensor, weights: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Negative log-likelihood of what is imitated: ``sum_i w_i c_i * -logprobs_i``, in nats.

    Args:
        logprobs: (N,) log-probabilities under the policy that is trained, in nats.
        old_logprobs: (N,) the same tokens under the policy that sampled them: only for statistics, no part in the loss.
        credit: (N,) 1 on what is imitated, 0 elsewhere.
        weights: (N,) weight of each token, see `token_weights`.

    Returns:
        The loss (scalar) and the statistics of `clipped_policy_loss` that add up; nothing is ever clipped.

    Raises:
        ValueError: The tensors do not align.
    """
    _check_aligned(logprobs=logprobs, old_logprobs=old_logprobs, credit=credit, weights=weights)
    stats = {
        "clip_fraction": weights.new_zeros(()),
        "approx_kl": -(weights * (logprobs - old_logprobs)).sum().detach(),
        "pull": (weights * credit).abs(),
    }
    return -(weights * credit * logprobs).sum(), stats


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, weights: Tensor, clip: float | None = None
) -> Tensor:
    """Squared error of the critic, halved; with a clip the worse of the free and the clipped one (as in PPO's code).

    ``loss = sum_i w_i / 2 * max((V_i - R_i)^2, (V'_i - R_i)^2)`` with ``V'_i`` = V_i held within `clip` of the old
    value: a value that has come further than that towards its return is not pulled any closer.

    Args:
        values: (N,) what the critic that is trained expects.
        old_values: (N,) what it expected before the update.
        returns: (N,) what it should have expected.
        weights: (N,) weight of each token, see `token_weights`.
        clip: In units of reward; None for no clip.

    Raises:
        ValueError: The tensors do not align.
    """
    _check_aligned(values=values, old_values=old_values, returns=returns, weights=weights)
    error = (values - returns).square()
    if clip is not None:
        held = old_values + (values - old_values).clamp(-clip, clip)
        error = torch.maximum(error, (held - returns).square())
    return (weights * error).sum() / 2


def token_weights(
    trajectory_index: Tensor,
    turn_index: Tensor,
    unit: Unit = "token",
    num_trajectories: int | None = None,
    num_turns: int | None = None,
    num_tokens: int | None = None,
) -> Tensor:
    """Weight of each action token; they sum to 1 over the whole batch of an update.

    The unit says what counts the same: every token (DAPO), every turn, or every trajectory (GRPO).

    ```
    trajectory_index   0    0    0    0   |  1    1
    turn_index         0    0    0    1   |  0    0
    "token"           1/6  1/6  1/6  1/6  | 1/6  1/6
    "turn"            1/9  1/9  1/9  1/3  | 1/6  1/6
    "trajectory"      1/8  1/8  1/8  1/8  | 1/4  1/4
    ```

    A micro-batch of whole trajectories passes the count of the whole batch for its unit; otherwise its weights sum to 1
    on their own and the sum over micro-batches is too large. A trajectory without a single action token counts in
    `num_trajectories` and takes its share along.

    Args:
        trajectory_index: (N,) which trajectory a token belongs to, numbered from 0 within these tensors.
        turn_index: (N,) which turn of that trajectory.
        unit: ``"token"``, ``"turn"`` or ``"trajectory"``.
        num_trajectories: Trajectories in the whole batch; None counts those present here.
        num_turns: Turns with action tokens in the whole batch; None counts those present here.
        num_tokens: Action tokens in the whole batch; None counts those present here.

    Returns:
        (N,) float32 weights on the device of `trajectory_index`.

    Raises:
        ValueError: The tensors do not align, the unit is unknown, or a count is smaller than what is present.
    """
    _check_aligned(trajectory_index=trajectory_index, turn_index=turn_index)
    if unit == "token":
        return _share(torch.arange(len(turn_index), device=turn_index.device), num_tokens, "num_tokens")
    if unit == "turn":
        return _share(torch.stack([trajectory_index, turn_index]), num_turns, "num_turns")
    if unit == "trajectory":
        return _share(trajectory_index, num_trajectories, "num_trajectories")
    raise ValueError(f"unit of the token weights must be 'token', 'turn' or 'trajectory', got {unit!r}")


def kl_penalty(logprobs: Tensor, ref_logprobs: Tensor, estimator: KLEstimator = "k3") -> Tensor:
    """Estimate KL(policy || reference) at each sampled token (Schulman, "Approximating KL divergence", 2020).

    With d = logprobs - ref_logprobs: ``k1`` is d (unbiased, may be negative), ``k2`` is d^2 / 2 (biased, low variance),
    ``k3`` is exp(-d) - 1 + d (unbiased and never negative).

    Args:
        logprobs: (N,) log-probabilities under the policy, in nats.
        ref_logprobs: (N,) the same tokens under the reference.
        estimator: ``"k1"``, ``"k2"`` or ``"k3"``.

    Returns:
        (N,) penalties in nats, differentiable in `logprobs`.

    Raises:
        ValueError: The tensors do not align or the estimator is unknown.
    """
    _check_aligned(logprobs=logprobs, ref_logprobs=ref_logprobs)
    difference = logprobs - ref_logprobs
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference.square() / 2
    if estimator == "k3":
        difference = difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        return torch.expm1(-difference) + difference
    raise ValueError(f"KL estimator must be 'k1', 'k2' or 'k3', got {estimator!r}")


def entropy_loss(entropy: Tensor, weights: Tensor) -> Tensor:
    """Negative weighted entropy in nats (scalar): added to the loss times a coefficient, it keeps the policy exploring.

    Args:
        entropy: (N,) entropy of the distribution each token was drawn from.
        weights: (N,) weight of each token, see `token_weights`.

    Raises:
        ValueError: The tensors do not align.
    """
    _check_aligned(entropy=entropy, weights=weights)
    return -(weights * entropy).sum()


def _mean_of_sequence(numbers: Tensor, sequence_index: Tensor) -> Tensor:
    """(N,) the mean over the tokens of its sequence, for each token."""
    _check_aligned(logprobs=numbers, sequence_index=sequence_index)
    _, index, sizes = sequence_index.unique(return_inverse=True, return_counts=True)
    return (numbers.new_zeros(len(sizes)).index_add(0, index, numbers) / sizes)[index]


def _share(units: Tensor, total: int | None, name: str) -> Tensor:
    """1 / (total * tokens of the same unit); `units` is (N,) or (K, N), one column per token."""
    _, unit_of_token, sizes = units.unique(dim=-1, return_inverse=True, return_counts=True)
    if total is not None and total < len(sizes):
        raise ValueError(f"{name} counts the whole batch: expected at least the {len(sizes)} present here, got {total}")
    return 1.0 / (sizes[unit_of_token] * (len(sizes) if total is None else total)).float()


def _check_aligned(**tensors: Tensor) -> None:
    """All tensors are (N,) with the same N, or ValueError says which one is not."""
    first, *rest = tensors.items()
    for name, tensor in [first, *rest]:
        if tensor.ndim != 1 or tensor.shape != first[1].shape:
            raise ValueError(
                f"{name} must hold one entry per action token: "
                f"expected the shape of {first[0]}, ({first[1].numel()},), got {tuple(tensor.shape)}"
            )
