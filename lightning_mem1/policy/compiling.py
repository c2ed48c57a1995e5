"""torch.compile for the layers of a policy in passes that train or score: fewer kernels to launch, the same numbers.

Each layer is cut at its attention, which runs as it is: a segment table has other tensors in every batch, and would be
compiled once more for each. Layers share what was compiled, for rows of any length. An engine runs layers as they are,
or compiles its own steps (`engine.local.static_decode`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from lightning_mem1.checks import check_choice
from lightning_mem1.policy.attention import carried
from lightning_mem1.policy.backbone import decoder_layers
from lightning_mem1.policy.recurrent import recurrent_layers

RECOMPILES = 64  # torch gives up after eight; grad or none, adapters on or off, one row or several are each another


def compile_layers(model: Any, backend: str) -> None:
    """Have the layers of a causal LM compiled when they first train or score.

    Args:
        model: May have an adapter.
        backend: Of torch.compile, such as inductor.

    Raises:
        ValueError: no such backend, or a model whose layers it cannot compile.
    """
    check_choice("backend", backend, torch.compiler.list_backends(exclude_tags=()), "model.compute.compile")
    if found := _unfit(model):
        raise ValueError(
            f"layers cannot be compiled: expected whole weights and torch's own kernels in every layer, got {found}; "
            "set model.compute.compile to ''"
        )
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILES)
    for layer in decoder_layers(model).values():
        compiled = torch.compile(layer._call_impl, backend=backend, dynamic=True)
        layer._compiled_call_impl = partial(_call, layer, compiled)


def is_compiled(model: Any) -> bool:
    """Whether the layers of a causal LM are compiled."""
    return any(layer._compiled_call_impl is not None for layer in decoder_layers(model).values())


def _unfit(model: Any) -> str:
    """What speaks against compiling; empty for nothing."""
    if getattr(model, "is_quantized", False):
        return "weights in 4 bits (model.compute.quantization)"
    if recurrent_layers(model):
        return "recurrent layers"
    if any("liger" in type(module).__module__ for module in model.modules()):
        return "liger's (model.compute.kernels)"
    return ""


def _call(layer: Any, compiled: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    along = carried() if not torch.compiler.is_compiling() else None
    if along is None or along.slots is not None or layer._forward_hooks:  # an engine's, or layers are being looked at
        return layer._call_impl(*args, **kwargs)
    if layer.training and getattr(layer, "gradient_checkpointing", False):
        # around what is compiled, and not within it
        return layer._gradient_checkpointing_func(partial(compiled, **kwargs), *args)
    return compiled(*args, **kwargs)
