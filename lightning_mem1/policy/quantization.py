"""The 4-bit base of QLoRA (arXiv 2305.14314): NF4 with double quantisation, through bitsandbytes.

Only the base's linear layers are quantised; adapters, norms, embeddings and the head keep their precision. What the
policy then computes is exactly what it samples from, so nothing of the training changes but the rounding of the base.
"""

from __future__ import annotations

from typing import Any

import torch

from lightning_mem1.checks import check_choice

QUANTIZATIONS = ("none", "nf4")


def check_quantization(name: str) -> None:
    """Raise ValueError when there is no such quantisation, or bitsandbytes is not installed."""
    check_choice("quantization", name, QUANTIZATIONS, "model.compute.quantization")
    if name != "none":
        import_bitsandbytes(f"model.compute.quantization {name}")


def import_bitsandbytes(wanted_by: str) -> Any:
    """The module bitsandbytes, which is no dependency of the package; raises ValueError without it."""
    try:
        import bitsandbytes
    except ImportError as error:
        raise ValueError(
            f"{wanted_by} needs bitsandbytes: expected it to be installed, got none; pip install bitsandbytes"
        ) from error
    return bitsandbytes


def quantization_config(name: str, dtype: str) -> Any:
    """What transformers takes for a quantised base that computes in `dtype`; None for "none"."""
    if name == "none":
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def play_as_it_trains(model: torch.nn.Module) -> None:
    """On some CPUs bitsandbytes repacks a layer for inference in bfloat16: what plays would not be what trains."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
