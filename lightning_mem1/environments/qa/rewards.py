"""What `data.reward` means: a word, a function of one's own by its dotted name, or a judge."""

from __future__ import annotations

from typing import get_args

from lightning_mem1.checks import check_choice
from lightning_mem1.environments.qa.judge import Judge, JudgeSettings
from lightning_mem1.environments.qa.scoring import Reward, RewardKind, Variant
from lightning_mem1.io.dotted_names import imported

KEY = "data.reward"


def reward_of(given: str | JudgeSettings, variant: Variant) -> Reward:
    """What an answer pays.

    Args:
        given: em, f1, em_mean, f1_mean, a dotted name, or which judge.
        variant: How answers are compared.

    Raises:
        ValueError: there is no such word or function, or no such judge.
    """
    if isinstance(given, JudgeSettings):
        return Judge(given, variant)
    if "." not in given:
        known = (*get_args(RewardKind), "a judge's endpoint", "a dotted name such as my_rewards.grade")
        check_choice("reward", given, known, KEY)
        return given  # type: ignore[return-value]
    found = imported(given, "reward", KEY)
    if not callable(found):
        raise ValueError(f"expected {KEY} to name a function, got {type(found).__name__} '{given}'; set it")
    return found  # type: ignore[no-any-return]
