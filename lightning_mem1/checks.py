"""Checks of single settings: one line each on what was expected, what came and which key to set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

MOVED: Mapping[str, str] = {  # keys of earlier versions, and their names now
    "model.window": "model.memory.window",
    "model.rollout.note_embedding": "model.memory.note_embedding",
    "model.rollout.wire": "model.rollout.format",
    "model.optimizer": "model.optim.name",
    "model.weight_decay": "model.optim.weight_decay",
    "model.warmup_steps": "model.optim.warmup_steps",
    "model.max_grad_norm": "model.optim.max_grad_norm",
    "model.num_epochs": "model.optim.num_epochs",
    "model.num_minibatches": "model.optim.num_minibatches",
    "model.epsilon": "model.loss.clip",
    "model.epsilon_high": "model.loss.clip_high",
    "model.beta": "model.loss.kl_coef",
    "model.kl_in": "model.loss.kl_in",
    "model.kl_estimator": "model.loss.kl_estimator",
    "model.entropy_coef": "model.loss.entropy_coef",
    "model.state_loss_weight": "model.loss.state_weight",
    "model.scale_rewards": "model.credit.scale",
    "model.resample_rounds": "model.rollout.resample_rounds",
    "model.dtype": "model.compute.dtype",
    "model.quantization": "model.compute.quantization",
    "model.attention": "model.compute.attention",
    "model.kernels": "model.compute.kernels",
    "model.gradient_checkpointing": "model.compute.gradient_checkpointing",
}

DTYPES = ("float32", "bfloat16", "float16")


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
