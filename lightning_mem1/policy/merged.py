"""A second view of a policy's model whose adapter stands in its weights, for decoding; training keeps the first.

Everything but the adapted layers is shared. Those have weights of their own here, made anew from base and adapter each
time: taking an adapter out of weights again would leave rounding in the base, step by step.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


def merged(model: nn.Module) -> Any:
    """The model as it is now, with the adapters that are on added into the weights of plain linear layers.

    What cannot be added exactly stays as it is: layers in 4 bits, shared out among ranks, or adapted otherwise than by
    plain LoRA. The view does not follow later changes of adapters.

    Args:
        model: A causal LM that peft put LoRA layers into; without any it is returned itself.
    """
    if not any(_can_merge(module) for module in model.modules()):
        return model
    shared: dict[int, Any] = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    for module in model.modules():
        if _can_merge(module):
            shared[id(module)] = _merged_layer(module)  # the copy takes what stands here for the module
    return copy.deepcopy(model, shared)


def _can_merge(module: Any) -> bool:
    from peft.tuners.lora.layer import Linear

    if type(module) is not Linear or type(module.base_layer) is not nn.Linear or module.merged:
        return False
    plain = not module.lora_variant and not any(module.lora_bias.values())
    return plain and type(module.base_layer.weight) is nn.Parameter


@torch.no_grad()
def _merged_layer(module: Any) -> nn.Linear:
    base = module.base_layer
    if module.disable_adapters:
        return base
    weight = base.weight.detach().clone()
    for name in module.active_adapters:
        if name in module.lora_A:
            weight += module.get_delta_weight(name).to(weight.dtype)
    layer = nn.Linear(base.in_features, base.out_features, device="meta")
    layer.weight, layer.bias = nn.Parameter(weight, requires_grad=False), base.bias
    return layer
