"""Weights that an update has broken are named before anything is saved or sampled with them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_mem1.policy.parts import whole

MOST = torch.finfo(torch.float32).max ** 0.5  # the product of two larger ones is infinite, and so is every score


def check_weights(weights: Mapping[str, nn.Parameter], rl_step: int) -> None:
    """Raise ValueError when a weight is nan, infinite, or too large to be multiplied.

    Args:
        weights: Those that train, by name.
        rl_step: The one whose update made them.
    """
    known = [weight.detach() for weight in weights.values() if weight.numel()]
    if not known or float(whole(torch.nn.utils.get_total_norm(known, torch.inf))) <= MOST:
        return
    broken = [name for name, weight in weights.items() if not _largest(weight.detach()) <= MOST]
    more = f" and {len(broken) - 1} more" if broken[1:] else ""
    lr = "model.critic.lr" if broken[0].startswith("critic.") else "model.lr"
    raise ValueError(
        f"the update of rl_step {rl_step} broke the weights: expected finite ones, got "
        f"{_largest(weights[broken[0]]):g} in '{broken[0]}'{more} of {len(weights)}; checkpoints are from before it: "
        f"lower {lr} and resume with --ckpt_path last, or start again"
    )


def _largest(weight: Tensor) -> float:
    """nan when one of them is nan."""
    return float(whole(weight.detach().abs().max())) if weight.numel() else 0.0
