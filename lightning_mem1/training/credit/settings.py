"""The settings of credit: how rewards become advantages, and what is done about an engine that differs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from lightning_mem1.checks import ANY_SIGN, SHARE, Range, Ranges
from lightning_mem1.training.choices import Unit

Scale = Literal["std", "none"]
Anchor = Literal["context", "state"]


@dataclass
class CreditSettings:
    """How rewards become advantages, and how credit flows back in time.

    Args:
        scale: "std" divides advantages by the group's deviation, "none" does not (arXiv 2503.20783).
        gamma: Discount per unit (ppo), per action token (reinforce_pp) or per turn (gigpo).
        lam: Trace decay of GAE per unit (ppo).
        unit: What a step of GAE is: an action token or a turn (ppo).
        step_weight: Weight of the comparison of steps against that of trajectories (gigpo).
        anchor: Which steps are compared: those taken in the same context, so with the same memory, or in the same state
            of the environment, as the paper has it (gigpo).
        bootstrap: Whether an episode that was cut off by turns or context counts as unfinished: the critic's last value
            stands for what would have come (ppo).
        keep: Most trajectories of a group that are imitated; null for no limit (raft).
        threshold: Least reward that is imitated; null for any (raft).
        rewrites: What GAE does where the context is rewritten (ppo with unit token): cross continues as if it were not;
            segments and rows, for comparison, end there, see `credit.rewrites`.
        mask_overlong: Leave episodes out of the loss that end without an end of their own: by the turn budget, or by
            the engine's context (SUPO, arXiv 2510.06727; any algorithm). Groups are still compared with them.
    """

    scale: Scale = "std"
    gamma: float = 1.0
    lam: float = 1.0
    unit: Literal["token", "turn"] = "token"
    step_weight: float = 1.0
    anchor: Anchor = "context"
    bootstrap: bool = False
    keep: int | None = 1
    threshold: float | None = None
    rewrites: Literal["cross", "segments", "rows"] = "cross"
    mask_overlong: bool = False
    ranges: ClassVar[Ranges] = {"gamma": SHARE, "lam": SHARE, "keep": Range(1), "threshold": ANY_SIGN}


@dataclass
class MismatchSettings:
    """What is done about an engine whose log-probabilities are not the trainer's.

    Args:
        correction: none; tis (truncated importance sampling) weighs a token by old / rollout, at most `cap`; mis
            (masked importance sampling) weighs it by old / rollout and drops it outside 1/cap to cap. Either costs one
            more scoring pass per rl_step.
        cap: Largest ratio, at least 1.
        level: What a ratio is taken of: a token, all tokens of a turn, or all action tokens of a trajectory. Only the
            last one is unbiased for more than one token, and its variance grows with the length.
    """

    correction: Literal["none", "tis", "mis"] = "none"
    cap: float = 2.0
    level: Unit = "token"
    ranges: ClassVar[Ranges] = {"cap": Range(1)}

    @property
    def on(self) -> bool:
        """Whether there is a correction."""
        return self.correction != "none"


def check_algorithm(name: str, known: Iterable[str]) -> None:
    """Raise ValueError when a name without a dot is none of the words for algorithms."""
    if name not in (known := list(known)):
        raise ValueError(
            f"unknown algorithm: expected one of {', '.join(known)}, or a dotted name such as "
            f"my_file.my_algorithm, got '{name}'; set model.algorithm"
        )
