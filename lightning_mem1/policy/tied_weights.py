"""Weights that two modules share, such as an embedding that is the head too: no adapter is put on them.

An adapter changes what one of the two modules computes; merged, it would change both.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch import nn


def adapted_ties(adapted: nn.Module) -> dict[str, list[str]]:
    """The adapted modules that share their weights, and the modules that they share them with.

    Args:
        adapted: A model that peft has put layers into.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    owners: dict[int, set[str]] = defaultdict(set)
    for name, parameter in adapted.named_parameters(remove_duplicate=False):
        owners[id(parameter)].add(_module_of(name))
    found = {}
    for name, module in adapted.named_modules():
        if isinstance(module, BaseTunerLayer):
            base: Any = module.get_base_layer()
        elif isinstance(module, ModulesToSaveWrapper):
            base = module.original_module
        else:
            continue
        mine = _plain(name)
        others = {owner for own in base.parameters(recurse=False) for owner in owners[id(own)]} - {mine}
        if others:
            found[mine] = sorted(others)
    return found


def check_training(adapted: nn.Module, model: Any) -> None:
    """Raise ValueError when a new adapter is put on embeddings or a head that share their weights.

    Args:
        adapted: The model with the adapter.
        model: The causal LM that it was put on.
    """
    ends = {id(_base(module)) for module in (model.get_input_embeddings(), model.get_output_embeddings())}
    named = {_plain(name) for name, module in adapted.named_modules() if id(_base(module)) in ends}
    if name := next((name for name in adapted_ties(adapted) if name in named), ""):
        other = adapted_ties(adapted)[name][0]
        raise ValueError(
            f"no adapter for weights that two modules share: expected others, got {name}, whose weights are those of "
            f"{other}; leave {name.rpartition('.')[2]} out of model.lora.target_modules"
        )


def check_merging(adapted: nn.Module) -> None:
    """Raise ValueError when an adapter that is to be merged is on weights that two modules share."""
    for name, others in adapted_ties(adapted).items():
        raise ValueError(
            f"cannot merge into weights that two modules share: expected an adapter on others, got one on {name}, "
            f"whose weights are those of {others[0]}"
        )


def _base(module: Any) -> Any:
    return getattr(module, "base_layer", module)


def _module_of(parameter: str) -> str:
    """``base_model.model.lm_head.base_layer.weight`` belongs to ``lm_head``."""
    return _plain(parameter.rpartition(".")[0])


def _plain(name: str) -> str:
    """A module's name without what peft puts around it."""
    name = name.removeprefix("base_model.model.")
    for inner in (".base_layer", ".original_module"):
        name = name.removesuffix(inner)
    return name
