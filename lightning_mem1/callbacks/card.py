"""What a run says of its policy for a model card, and the adapter that is saved with one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_mem1.data.task_data import TaskDataModule
from lightning_mem1.io.atomic_files import write_atomic
from lightning_mem1.training.checkpoint_state import base_fingerprint
from lightning_mem1.training.model_card import card
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.training.plain_settings import plain

METRICS = ("val/reward", "val/success", "val/em", "val/f1", "val/peak_tokens_max")


def save_with_card(
    module: Mem1Module, folder: Path, report: Mapping[str, Any], weights: Mapping[str, Tensor] | None = None
) -> None:
    """Write the module's adapter, or its whole model, and the card that says what it is.

    Args:
        module: Holds the policy and its settings.
        folder: Made when it is not there.
        report: ``data`` of `described`, and ``validation``: `measured` with its ``rl_step``.
        weights: As in `Policy.save`.
    """
    policy = module.policy
    policy.save(folder, weights)
    settings = {key: plain(value) for key, value in module.hparams.items()}
    entry = {"rl_step": module.rl_step, "base": base_fingerprint(policy), "settings": settings}
    write_atomic(folder / "README.md", card(entry, policy, policy.model is policy.causal_lm, report).encode())


def report_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What `RLCheckpoint` left of it in a checkpoint; empty in those of earlier versions."""
    report: dict[str, Any] = checkpoint.get("callbacks", {}).get("RLCheckpoint", {}).get("report", {})
    return report


def described(data: Any) -> dict[str, Any]:
    """The tasks of a run, in plain values; nothing for a data module of another kind."""
    if not isinstance(data, TaskDataModule):
        return {}
    splits = ("train", "val") if data.num_val_tasks else ("train",)
    sizes = {f"{split}_tasks": data.source.size(split) for split in splits}  # type: ignore[arg-type]
    named = {name: getattr(data, name) for name in ("num_val_tasks", "tasks_per_step", "group_size", "seed")}
    return {"source": type(data.source).__name__, **sizes, **named}


def measured(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Those of a validation's metrics that a card shows."""
    return {key: float(metrics[key]) for key in METRICS if key in metrics}
