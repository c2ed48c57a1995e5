"""Adapters into the weights of their base, in float32, and what rounding to fewer bits takes away of them.

A weight of 16 bits has few digits. What a small adapter adds to it may be less than half of the last one, and is then
lost altogether.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lightning_mem1.policy.tied_weights import check_merging


def merge(adapted: Any, adapters: Sequence[str] | None = None) -> tuple[Any, float]:
    """Add adapters to the weights that they are on, for good.

    Args:
        adapted: A model that peft has put adapters into; it is used up.
        adapters: Their names; None for those that are on.

    Returns:
        The model without adapters, in its dtype, and the share of what they add that rounding lost: the norm of the
        error over that of the change, 0 in float32::

            weight 1, bfloat16 (next numbers 0.996 and 1.0078)     adapter adds 0.0078 -> 1.0078, lost 0
                                                                   adapter adds 0.003  -> 1.0,    lost 1

    Raises:
        ValueError: a base in 4 bits, or weights that two modules share.
    """
    if getattr(adapted.get_base_model(), "is_quantized", False):
        raise ValueError(
            "cannot merge into a base in 4 bits: expected whole weights, got model.compute.quantization nf4; export "
            "without --merged, and put the adapter on the base as it was published"
        )
    check_merging(adapted)
    names = None if adapters is None else list(adapters)
    error = change = 0.0
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All adapters are already merged")
        for layer in [module for module in adapted.modules() if _has_16_bits(module)]:
            lost, added = _merge_wide(layer, names)
            error, change = error + lost, change + added
        model = adapted.merge_and_unload(adapter_names=names)
    return model, (error / change) ** 0.5 if change else 0.0


def _merge_wide(layer: Any, names: list[str] | None) -> tuple[float, float]:
    """Merge one layer in float32, and round; returns the squared norms of error and change."""
    weight = layer.get_base_layer().weight
    dtype, before = weight.dtype, weight.data.float()
    weight.data = before.clone()
    layer.merge(adapter_names=names)
    exact = weight.data
    weight.data = exact.to(dtype)
    return _squared(weight.data.float() - exact), _squared(exact - before)


def _squared(difference: torch.Tensor) -> float:
    return float(difference.double().square().sum())


def _has_16_bits(module: nn.Module) -> bool:
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not isinstance(module, BaseTunerLayer):
        return False
    weight = getattr(module.get_base_layer(), "weight", None)
    return isinstance(weight, torch.Tensor) and weight.dtype in (torch.bfloat16, torch.float16)
