"""What a checkpoint says besides weights: which base they belong to, and the state of the random generators.

Everything is tensors and plain values, because checkpoints are only ever loaded with `weights_only`.
"""

from __future__ import annotations

import hashlib
import os
import random
from typing import Any

import torch

from lightning_mem1.policy.policy import Policy


def base_fingerprint(policy: Policy) -> str:
    """Sixteen hex digits of what is frozen: shapes and first values, as bfloat16, so that every dtype agrees."""
    digest = hashlib.sha256()
    for parameter in policy.parameters():
        if not parameter.requires_grad:
            values = parameter.detach().flatten()[:64].to(torch.bfloat16).view(torch.uint8).cpu()
            digest.update(f"{tuple(parameter.shape)}".encode() + bytes(values.tolist()))
    return digest.hexdigest()[:16]


def rng_state() -> dict[str, Any]:
    """Random state as tensors and plain numbers, so that it loads with `weights_only`."""
    version, words, gauss = random.getstate()
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": [version, list(words), gauss]}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put the random state back; another number of GPUs keeps its own."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


def resolve_seed(seed: int | None) -> int:
    """The given seed, else the one of `lightning.seed_everything`, else 0."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
