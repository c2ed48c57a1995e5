"""Linear layers that are never called: a module computes with their weight itself, so an adapter would do nothing."""

from __future__ import annotations

import inspect
import re
from functools import cache

from torch import nn


def uncalled_linears(model: nn.Module) -> list[str]:
    """Names of linear layers whose weight the module around them reads, by its code, and which it does not call.

    The adapter would have no effect in training, but one once it is merged. Only modules of transformers are looked at.
    """
    return [
        f"{name}.{child}" if name else child
        for name, module in model.named_modules()
        if type(module).__module__.startswith("transformers.models.")
        for child, layer in module.named_children()
        if isinstance(layer, nn.Linear) and _is_only_read(type(module), child)  # type: ignore[arg-type]
    ]


@cache
def _is_only_read(kind: type[nn.Module], child: str) -> bool:
    try:
        code = inspect.getsource(kind)
    except OSError:  # no source is there
        return False
    attribute = rf"self\.{re.escape(child)}\b"
    return bool(re.search(rf"{attribute}\.weight\b", code)) and not re.search(rf"{attribute}\s*\(", code)
