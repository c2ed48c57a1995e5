"""All weights of a policy, as a checkpoint holds them: read for another copy of the same model, or handed on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from lightning_mem1.policy.loading import load_model
from lightning_mem1.policy.policy import Policy

Weights = Mapping[str, Tensor]


def read_weights(policy: Policy, folder: str) -> dict[str, Tensor]:
    """The weights of a folder, by their names in a policy's causal LM, on the CPU and in its precision.

    Raises:
        ValueError: they cannot be read, or are another model's; see `load_model`.
    """
    dtype = str(policy.causal_lm.dtype).removeprefix("torch.")
    found: dict[str, Tensor] = load_model(folder, dtype).state_dict()
    held = _held(policy)
    for name in sorted(held.keys() | found.keys()):
        expected, got = (tuple(each[name].shape) if name in each else "nothing" for each in (held, found))
        if expected != got:
            raise ValueError(f"weights of '{folder}' are another model's: expected {name} {expected}, got {got}")
    return found


@torch.no_grad()
def put_weights(policy: Policy, weights: Weights) -> None:
    """Give a policy the weights of `read_weights`, in place."""
    for name, weight in _held(policy).items():
        weight.copy_(weights[name])


def _held(policy: Policy) -> dict[str, Tensor]:
    """A policy's own weights; those of adapters that were added while it is served are not among them."""
    every = policy.causal_lm.state_dict()
    return {name.replace(".base_layer.", "."): weight for name, weight in every.items() if ".lora_" not in name}


def in_checkpoint_format(policy: Policy, weights: Weights | None = None) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors as a saved checkpoint of the policy would have them, which other programs load.

    Args:
        policy: In full training.
        weights: Those of `sharding.whole_weights`; None for the policy's as they are.
    """
    found = dict(policy.causal_lm.state_dict() if weights is None else weights)
    named: dict[int, str] = {}
    for name, weight in found.items():
        named.setdefault(weight.data_ptr() if weight.numel() else id(weight), name)  # what two modules share, once
    once = {name: found[name] for name in named.values()}
    yield from checkpoint_names(policy, once).items()


def checkpoint_names(policy: Policy, weights: Weights) -> dict[str, Tensor]:
    """Weights by the names, and in the pieces, that a checkpoint has them in."""
    from transformers.core_model_loading import revert_weight_conversion

    found: dict[str, Tensor] = revert_weight_conversion(policy.causal_lm, dict(weights))
    return found
