"""LoRA layers with the adapter's second product, its scale and the sum in one call (addmm): three kernels, not five.

peft multiplies by B, scales and adds, each a pass over the layer's output, and scales its gradient in another. Here the
product is accumulated into the base's output. In 16 bits the sum is rounded once in place of three times.

Products with A of layers that read the same input (queries, keys, values) in one were tried: benchmarks/log.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from torch import Tensor, nn


def fuse_lora(model: nn.Module) -> None:
    """Have the plain LoRA layers of a model compute so; those in 4 bits and of other kinds stay as they are.

    Raises:
        ValueError: dropout, which comes between a layer's input and its adapter, or no such layer.
    """
    plain: list[Any] = [module for module in model.modules() if is_plain_lora(module)]
    dropout = any(_has_dropout(module, module.lora_dropout) for module in plain)
    if dropout or not plain:
        raise ValueError(
            "LoRA cannot be fused: expected plain LoRA on whole weights, without dropout, got "
            f"{'dropout' if dropout else 'none'}; set model.compute.fused_lora false, or model.lora.dropout 0"
        )
    for module in plain:
        module.__class__ = _fused()


def is_plain_lora(module: Any) -> bool:
    """Whether a module is peft's LoRA on a linear layer of whole weights, and nothing beyond LoRA, fused or not."""
    from peft.tuners.lora.layer import Linear

    if type(module) not in (Linear, _fused()) or type(module.base_layer) is not nn.Linear:
        return False
    return not module.lora_variant and not any(module.lora_bias.values())


def _has_dropout(module: Any, adapters: Iterable[str]) -> bool:
    return any(isinstance(module.lora_dropout[name], nn.Dropout) for name in adapters)


@cache
def _fused() -> type[Any]:
    from peft.tuners.lora.layer import Linear

    class FusedLinear(Linear):
        """peft's layer, with another forward pass."""

        def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            """(..., in) -> (..., out)."""
            names = [name for name in self.active_adapters if name in self.lora_A]
            if self.disable_adapters or self.merged or args or kwargs or x.dim() < 2 or _has_dropout(self, names):
                return super().forward(x, *args, **kwargs)  # type: ignore[no-any-return]
            rows = x.flatten(0, -2)
            out: Tensor = self.base_layer(rows)  # of two dimensions: a view changed in place costs copies of gradients
            rows = rows.to(out.dtype)
            for name in names:
                a, b = (each[name].weight.to(out.dtype) for each in (self.lora_A, self.lora_B))
                out.addmm_(rows @ a.T, b.T, alpha=self.scaling[name])
            return out.unflatten(0, x.shape[:-1])

    return FusedLinear
