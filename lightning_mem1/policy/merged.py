"""A second view of a policy's model whose adapter is merged into its weights, for decoding; training keeps the first.

Everything but the adapted layers is shared. Those have weights of their own here, computed from base and adapter each
time: taking an adapter out of weights again would leave rounding in the base, step by step.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from lightning_mem1.policy.fused_lora import is_plain_lora


class Merged:
    """The model as it was at the last `update`, with the adapters that were on added into plain linear layers.

    What cannot be added stays as it is: layers in 4 bits, or adapted otherwise than by plain LoRA.

    Args:
        source: A causal LM that peft may have put LoRA layers into; without any, the view is the source itself.
    """

    def __init__(self, source: nn.Module) -> None:
        self.source = source
        self._layers: dict[int, tuple[Any, nn.Linear]] = {}
        self.update()

    def update(self) -> None:
        """Take over weights and adapters as they are now, into the same tensors where the layers are the same."""
        adapted = [module for module in self.source.modules() if _can_merge(module)]
        if not self._layers or [id(module) for module in adapted] != list(self._layers) or self._left:
            self._copy(adapted)
        for module, layer in self._layers.values():
            _merge(module, layer)

    def _copy(self, adapted: list[Any]) -> None:
        self._layers = {id(module): (module, _empty_like(module.base_layer)) for module in adapted}
        if not adapted:
            self.model: Any = self.source
            self._left = False
            return
        shared: dict[int, Any] = {id(each): each for each in [*self.source.parameters(), *self.source.buffers()]}
        shared |= {number: layer for number, (_, layer) in self._layers.items()}
        self.model = copy.deepcopy(self.source, shared)
        self._left = any(hasattr(module, "lora_A") for module in self.model.modules())  # does not follow its source


def _can_merge(module: Any) -> bool:
    return is_plain_lora(module) and not module.merged


def _empty_like(base: nn.Linear) -> nn.Linear:
    layer = nn.Linear(base.in_features, base.out_features, device="meta")
    layer.weight, layer.bias = nn.Parameter(torch.empty_like(base.weight), requires_grad=False), base.bias
    return layer


@torch.no_grad()
def _merge(module: Any, layer: nn.Linear) -> None:
    layer.weight.copy_(module.base_layer.weight)
    if module.disable_adapters:
        return
    for name in module.active_adapters:
        if name in module.lora_A:
            layer.weight += module.get_delta_weight(name).to(layer.weight.dtype)
