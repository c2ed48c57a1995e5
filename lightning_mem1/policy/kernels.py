"""Fused kernels for norms and MLPs, from liger-kernel (arXiv 2410.10989): less memory traffic on a GPU, same result.

Training and rollout run the same modules, so they stay each other's equals whichever kernels are chosen.
"""

from __future__ import annotations

from typing import Any

import torch

from lightning_mem1.checks import check_choice

KERNELS = ("torch", "liger")


def use_kernels(model: Any, name: str) -> None:
    """Have a causal LM, not yet adapted, run with these kernels.

    Raises:
        ValueError: no such kernels; or liger-kernel is not installed, knows no such model, or finds no GPU.
    """
    check_choice("kernels", name, KERNELS, "model.compute.kernels")
    if name == "torch":
        return
    try:
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN as KNOWN
    except ImportError as error:
        raise ValueError(
            "model.compute.kernels liger needs liger-kernel: expected it to be installed, got none; "
            "pip install liger-kernel"
        ) from error
    kind = model.config.model_type
    if kind not in KNOWN or not torch.cuda.is_available():
        got = f"model type '{kind}'" if kind not in KNOWN else "no GPU"
        raise ValueError(
            f"model.compute.kernels liger cannot be used: expected a model it knows on a GPU, got {got}; use torch"
        )
    # not the rotary embedding, which it would replace for every model of this process, nor the loss, which is ours
    KNOWN[kind](rope=False, cross_entropy=False, fused_linear_cross_entropy=False, model=model)
