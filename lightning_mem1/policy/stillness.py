"""What is random in a model is off while it is scored: it would not be the model that was sampled from.

Dropout of a base, noise in its routers and the like follow a module's mode, so a base stays in evaluation mode while it
trains. Two things need more than that: transformers recomputes the activations of layers in training mode alone, and
the dropout of adapters is a setting, which acts in passes with a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_mem1.policy.attention import carried, carrying


def let_train(causal_lm: nn.Module) -> None:
    """Leave in training mode what has to be: the dropout of adapters, and what recomputes activations."""
    for module in causal_lm.modules():
        module.training = bool(getattr(module, "gradient_checkpointing", False))
    for dropout in _dropouts(causal_lm):
        dropout.training = True


@contextmanager
def still(causal_lm: nn.Module) -> Iterator[None]:
    """Inside, the dropout of adapters is off as well."""
    acting = [dropout for dropout in _dropouts(causal_lm) if dropout.training]
    for dropout in acting:
        dropout.training = False
    try:
        yield
    finally:
        for dropout in acting:
            dropout.training = True


def _dropouts(causal_lm: nn.Module) -> list[nn.Dropout]:
    holders = [module.lora_dropout for module in causal_lm.modules() if hasattr(module, "lora_dropout")]
    return [each for holder in holders for each in holder.values() if isinstance(each, nn.Dropout)]  # type: ignore[operator]


def recompute_activations(causal_lm: Any, enable: bool) -> None:
    """Have layers compute their activations again in the backward pass, without dropout, or keep them."""
    if not enable:
        if any(getattr(module, "gradient_checkpointing", False) for module in causal_lm.modules()):
            causal_lm.gradient_checkpointing_disable()
        return
    causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    for module in causal_lm.modules():
        if "_gradient_checkpointing_func" in module.__dict__:
            module._gradient_checkpointing_func = partial(_recomputed, module)


def _recomputed(module: nn.Module, function: Callable[..., Any], *args: Any) -> Any:
    return checkpoint(_without_noise, module, function, *args, use_reentrant=False, context_fn=_same_pass)


def _without_noise(module: nn.Module, function: Callable[..., Any], *args: Any) -> Any:
    module.training = False
    try:
        return function(*args)
    finally:
        module.training = True


def _same_pass() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Around the first computing and around the second, which may be in another thread."""
    return nullcontext(), carrying(carried())


def scoring(causal_lm: nn.Module) -> AbstractContextManager[None]:
    """Around a pass that scores: nothing is random unless it has a gradient."""
    return nullcontext() if torch.is_grad_enabled() else still(causal_lm)
