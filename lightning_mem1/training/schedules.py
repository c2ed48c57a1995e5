"""Learning-rate schedules by the names of transformers, as a function of the rl_step alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import torch
from transformers import get_scheduler

from lightning_mem1.checks import check_choice
from lightning_mem1.training.choices import ScheduleName

SCHEDULES: tuple[str, ...] = get_args(ScheduleName)
ENDLESS = ("constant", "inverse_sqrt")  # these need not know how many rl_steps there are


def learning_rate(
    lr: float,
    rl_step: int,
    name: str = "constant",
    warmup_steps: int = 0,
    num_rl_steps: int | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> float:
    """The learning rate of an rl_step.

    Nothing is kept between rl_steps, so a resumed run has the rates of one that was never interrupted.

    Args:
        lr: Highest learning rate.
        rl_step: From 1.
        name: One of `SCHEDULES`, see `transformers.get_scheduler`.
        warmup_steps: rl_steps over which the rate rises linearly, whatever the schedule.
        num_rl_steps: rl_steps of the run; the last one still has a rate above 0. None where the schedule needs no end.
        arguments: Further arguments of the schedule, such as {min_lr_rate: 0.1}.

    Raises:
        ValueError: the schedule needs an end or does not take these arguments.

    >>> [learning_rate(1.0, rl_step, warmup_steps=4) for rl_step in (1, 2, 4, 5)]
    [0.25, 0.5, 1.0, 1.0]
    >>> [learning_rate(1.0, rl_step, "linear", num_rl_steps=3) for rl_step in (1, 2, 3)]
    [0.75, 0.5, 0.25]
    """
    if not lr:
        return 0.0
    check_choice("learning-rate schedule", name, SCHEDULES, "model.optim.schedule")
    if name not in ENDLESS and num_rl_steps is None:
        raise ValueError(
            f"schedule without an end: expected a number of rl_steps for {name}, got data.num_rl_steps null; set it, "
            "or model.optim.schedule constant"
        )
    steps = None if num_rl_steps is None else num_rl_steps + 1
    chosen = "constant_with_warmup" if name == "constant" else name
    try:
        schedule: Any = get_scheduler(chosen, _optimizer(lr), warmup_steps, steps, dict(arguments or {}) or None)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"arguments that {name} does not take: expected those of transformers.get_scheduler, got "
            f"{dict(arguments or {})} ({error}); set model.optim.schedule_args"
        ) from error
    return lr * float(schedule.lr_lambdas[0](rl_step))


def _optimizer(lr: float) -> torch.optim.Optimizer:
    """Of nothing: a schedule reads the highest learning rate from an optimizer."""
    return torch.optim.SGD([torch.zeros(1)], lr=lr)
