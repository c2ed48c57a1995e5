"""What the module's settings may be: one line for each that cannot be, with the key to set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_mem1.checks import check_choice, check_least
from lightning_mem1.context.memory import check_mode
from lightning_mem1.context.prompts import PROMPT_STYLES
from lightning_mem1.engine.vllm import check_installed
from lightning_mem1.policy.kernels import KERNELS
from lightning_mem1.policy.quantization import QUANTIZATIONS
from lightning_mem1.training.credit.algorithms import Algorithm
from lightning_mem1.training.layouts.spans import check_layout
from lightning_mem1.training.optimizers import OPTIMIZERS

LEAST: Mapping[str, int] = {  # keys below model, and the least that each may be
    "num_epochs": 1,
    "num_minibatches": 1,
    "max_tokens_per_microbatch": 1,
    "lr": 0,
    "warmup_steps": 0,
    "weight_decay": 0,
    "epsilon": 0,
    "epsilon_high": 0,
    "beta": 0,
    "max_grad_norm": 0,
    "state_loss_weight": 0,
    "resample_rounds": 0,
    "credit.gamma": 0,
    "credit.lam": 0,
    "credit.step_weight": 0,
    "credit.keep": 1,
    "mismatch.cap": 1,
    "shaping.overlong_buffer_tokens": 0,
    "shaping.overlong_penalty": 0,
    "shaping.state_budget_tokens": 0,
    "shaping.state_penalty": 0,
    "lora.r": 1,
    "critic.r": 1,
    "critic.lr": 0,
    "critic.value_clip": 0,
    "critic.warmup_steps": 0,
    "engine.num_slots": 1,
    "engine.max_prefill_tokens": 1,
    "engine.prefill_interval": 1,
    "engine.max_context_tokens": 2,
    "engine.server.num_retries": 0,
    "engine.server.pause_s": 0,
    "engine.server.max_staleness": 0,
    "rollout.max_new_tokens": 1,
    "rollout.max_information_tokens": 16,
}

CHOICES: Mapping[str, tuple[str, ...]] = {  # keys below model, and what each may be
    "mismatch.correction": ("none", "tis", "mis"),
    "mismatch.level": ("token", "turn", "trajectory"),
    "quantization": QUANTIZATIONS,
    "kernels": KERNELS,
    "optimizer": OPTIMIZERS,
}


def check_settings(settings: Mapping[str, Any], algorithms: Mapping[str, Algorithm]) -> None:
    """Check the arguments of `Mem1Module`.

    Args:
        settings: Every argument by name.
        algorithms: The algorithms that there are, by name.

    Raises:
        ValueError: one line on what was expected, what came and which key to set.
    """
    check_mode(settings["memory"], settings["window"])
    check_layout(settings["layout"], settings["memory"])
    check_choice("algorithm", settings["algorithm"], algorithms, "model.algorithm")
    for key, least in LEAST.items():
        check_least(f"model.{key}", _get(settings, key), least)
    for key, choices in CHOICES.items():
        check_choice(key.split(".")[-1], _get(settings, key), choices, f"model.{key}")
    credit = settings["credit"]
    if settings["algorithm"] == "raft" and credit.keep is None and credit.threshold is None:
        raise ValueError(
            "raft would imitate whatever was played: expected a limit, got keep null and threshold null; "
            "set model.credit.keep or model.credit.threshold"
        )
    _check_sampling(settings)
    _check_engine(settings)
    if settings["quantization"] != "none" and settings["lora"] is None:
        raise ValueError(
            "a base in 4 bits cannot train: expected an adapter on it, got full training; set model.lora or "
            "model.quantization none"
        )
    if settings["beta"] and settings["lora"] is None:
        raise ValueError("no reference policy: expected an adapter for the KL penalty; set model.lora or model.beta 0")
    if algorithms[settings["algorithm"]].critic and settings["lora"] is None:
        raise ValueError(
            "no base to put a critic on: expected a policy that trains an adapter, got full training; "
            "set model.lora or an algorithm without a critic"
        )


def _check_sampling(settings: Mapping[str, Any]) -> None:
    rollout, context = settings["rollout"], settings["engine"].max_context_tokens
    if rollout.temperature <= 0:
        raise ValueError(
            f"training needs sampling: expected a temperature above 0, got {rollout.temperature}; "
            "set model.rollout.temperature"
        )
    if not 0 < rollout.top_p <= 1:
        raise ValueError(
            f"model.rollout.top_p out of range: expected above 0, at most 1, got {rollout.top_p}; "
            "set model.rollout.top_p"
        )
    if rollout.env_timeout_s is not None and not rollout.env_timeout_s > 0:
        raise ValueError(
            f"model.rollout.env_timeout_s too small: expected more than 0, got {rollout.env_timeout_s}; set it, or "
            "null for no limit"
        )
    check_choice("prompt style", rollout.prompt, PROMPT_STYLES, "model.rollout.prompt")
    if context <= rollout.max_new_tokens:
        raise ValueError(
            f"no room for a context: expected more tokens than model.rollout.max_new_tokens, {rollout.max_new_tokens}, "
            f"got {context}; raise model.engine.max_context_tokens"
        )


def _check_engine(settings: Mapping[str, Any]) -> None:
    engine = settings["engine"]
    check_choice("engine", engine.kind, ("local", "transformers", "server", "vllm"), "model.engine.kind")
    if engine.kind == "vllm":
        check_installed()
    if not 0 < engine.vllm.gpu_memory_utilization <= 1:
        raise ValueError(
            "model.engine.vllm.gpu_memory_utilization out of range: expected above 0, at most 1, got "
            f"{engine.vllm.gpu_memory_utilization}; set it"
        )
    if not engine.server.timeout_s > 0:
        raise ValueError(
            f"model.engine.server.timeout_s too small: expected more than 0, got {engine.server.timeout_s}; set it"
        )
    if engine.kind == "server" and engine.server.max_staleness and not settings["mismatch"].on:
        raise ValueError(
            "stale weights need a correction: expected model.mismatch.correction tis or mis, got none; set it, or "
            "model.engine.server.max_staleness 0"
        )


def _get(settings: Mapping[str, Any], key: str) -> Any:
    """``"lora.r"`` -> the adapter's rank, None without an adapter."""
    first, *rest = key.split(".")
    value = settings[first]
    for name in rest:
        value = getattr(value, name, None)
    return value
