"""The settings of adapters: the policy's and the critic's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightning_mem1.checks import RATE, Range, Ranges


@dataclass
class LoraSettings:
    """LoRA (arXiv 2106.09685).

    Args:
        r: Rank of the update.
        alpha: Scale; the update is multiplied by alpha / r.
        dropout: Dropout on the adapter's input, in passes with a gradient; 0 so that these score what was sampled.
        target_modules: Module names, or "all-linear" for every linear layer but the head.
    """

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"
    ranges: ClassVar[Ranges] = {
        "r": Range(1, 2**14),
        "alpha": Range(0, 10**6, above=True),
        "dropout": Range(0, 1, below=True),
    }


@dataclass
class CriticSettings(LoraSettings):
    """The critic (ppo): its adapter, and how it learns.

    Args:
        policy: A base of the critic's own, named as in `model.policy`, with the policy's vocabulary; null shares the
            policy's.
        lr: Learning rate of the adapter and the value head; it has no warm-up of its own.
        value_clip: How far a value may move from the one before the update, in units of reward; null for no clip.
        warmup_steps: rl_steps at the start in which the critic learns alone.
        r: Rank of the update.
        alpha: Scale; the update is multiplied by alpha / r.
        dropout: Dropout on the adapter's input.
        target_modules: Module names, or "all-linear" for every linear layer but the head.
    """

    policy: str | None = None
    lr: float = 1e-3
    value_clip: float | None = 0.5
    warmup_steps: int = 0
    ranges: ClassVar[Ranges] = {"lr": RATE}
