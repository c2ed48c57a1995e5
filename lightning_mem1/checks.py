"""Checks of single settings: one line each on what was expected, what came and which key to set."""

from __future__ import annotations

import os
from collections.abc import Iterable


def check_choice(what: str, value: str, choices: Iterable[str], key: str) -> None:
    """Raise ValueError when `value`, a `what` found under `key`, is none of `choices`."""
    if value not in (choices := list(choices)):
        raise ValueError(f"unknown {what}: expected one of {', '.join(choices)}, got '{value}'; set {key}")


def check_least(key: str, value: float | None, least: float) -> None:
    """Raise ValueError when a number is below the least that it may be; None is no limit and passes."""
    if value is not None and not value >= least:  # nan is below everything
        raise ValueError(f"{key} too small: expected at least {least}, got {value}; set {key}")


def resolve_seed(seed: int | None) -> int:
    """The given seed, else the one of `lightning.seed_everything`, else 0."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
