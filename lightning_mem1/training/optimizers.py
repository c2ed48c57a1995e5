"""The optimizers of a training by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

import torch

from lightning_mem1.checks import check_choice
from lightning_mem1.policy.quantization import import_bitsandbytes
from lightning_mem1.training.choices import OptimizerName

# name -> class of bitsandbytes; "paged": the state lies where the CPU can take it over when the GPU's memory is short
BITSANDBYTES = {"adamw_8bit": "AdamW8bit", "paged_adamw": "PagedAdamW32bit", "paged_adamw_8bit": "PagedAdamW8bit"}
OPTIMIZERS: tuple[str, ...] = get_args(OptimizerName)


def make_optimizer(
    name: str, groups: Iterable[dict[str, Any]], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW over groups of parameters.

    Args:
        name: One of `OPTIMIZERS`; all but the first need bitsandbytes (arXiv 2110.02861, 2305.14314).
        groups: As torch's optimizers take them.
        lr: Learning rate.
        weight_decay: Weight decay.

    Raises:
        ValueError: there is no such optimizer, or bitsandbytes is not installed.
    """
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay)
    check_choice("optimizer", name, OPTIMIZERS, "model.optim.name")
    kind = getattr(import_bitsandbytes(f"model.optim.name {name}").optim, BITSANDBYTES[name])
    optimizer: torch.optim.Optimizer = kind(list(groups), lr=lr, weight_decay=weight_decay)
    return optimizer
