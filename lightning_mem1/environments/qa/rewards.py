"""What `data.reward` means: a word, a function of one's own by its dotted name, or a judge."""

from __future__ import annotations

from typing import get_args

from lightning_mem1.checks import check_choice
from lightning_mem1.environments.qa.judge import Judge, JudgeSettings
from lightning_mem1.environments.qa.scoring import Reward, RewardKind, Variant
from lightning_mem1.io.dotted_names import imported

JUDGE = "judge"
KEY = "data.reward"


def reward_of(name: str, judge: JudgeSettings | None, variant: Variant) -> Reward:
    """What an answer pays.

    Args:
        name: em, f1, em_mean, f1_mean, judge, or a dotted name.
        judge: Which judge.
        variant: How answers are compared.

    Raises:
        ValueError: there is no such word or function, or a judge without its settings, or the other way round.
    """
    if (name == JUDGE) != (judge is not None):
        got = f"{KEY} {name} and {'no judge' if judge is None else 'a judge'}"
        raise ValueError(f"data.judge goes with {KEY} judge: expected both or neither, got {got}; set the other one")
    if judge is not None:
        return Judge(judge, variant)
    if "." not in name:
        check_choice("reward", name, (*get_args(RewardKind), JUDGE, "a dotted name such as my_rewards.grade"), KEY)
        return name  # type: ignore[return-value]
    found = imported(name, "reward", KEY)
    if not callable(found):
        raise ValueError(f"expected {KEY} to name a function, got {type(found).__name__} '{name}'; set it")
    return found  # type: ignore[no-any-return]
