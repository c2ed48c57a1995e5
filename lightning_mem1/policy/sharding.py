"""A policy shared out among ranks (FSDP2): each keeps a part of every layer, and gathers a layer to use it.

With an adapter the frozen layers alone are shared out. Adapters, embeddings, norms outside of layers and the head stay
whole on every rank: what trains are ordinary tensors, so gradients, optimizer and checkpoints are those of any other
run. In full training everything is shared out, and what trains are `DTensor`s: gradients are added up over ranks while
they are handed back, and the optimizer keeps moments of its own part alone.

Gathering is a meeting of all ranks: each has to take the same number of forward and backward passes, and for rollouts
in this process, whose lengths differ, all layers are gathered once before and let go afterwards.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_mem1.policy.backbone import decoder_layers
from lightning_mem1.policy.compiling import is_compiled
from lightning_mem1.policy.parts import whole
from lightning_mem1.policy.policy import Policy


def shard(policy: Policy, mesh: Any) -> None:
    """Share a policy's weights out over a one-dimensional device mesh: those of frozen layers, or all that train.

    Raises:
        ValueError: a base in 4 bits, or layers that are compiled.
    """
    if is_compiled(policy.causal_lm):
        raise ValueError(
            "compiled layers cannot be shared out: expected plain ones, got model.compute.compile; set it to '', or "
            "trainer.strategy ddp"
        )
    if getattr(policy.causal_lm, "is_quantized", False):
        raise ValueError(
            "a base in 4 bits cannot be shared out: expected whole weights; set model.compute.quantization none, or "
            "trainer.strategy ddp"
        )
    from torch.distributed.fsdp import FSDPModule, fully_shard

    every = policy.model is policy.causal_lm
    for layer in decoder_layers(policy.causal_lm).values():
        trained = set() if every else {parameter for parameter in layer.parameters() if parameter.requires_grad}
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=trained)
    if not every:
        return
    fully_shard(policy, mesh=mesh, reshard_after_forward=True)  # what is outside of layers, and the way through them
    for module in policy.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # losses are shares of a sum over ranks, see `losses.token_weights`
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other
    # torch takes the first module that runs for the outermost one, which in a rollout would be an embedding or a layer
    policy._get_fsdp_state()._lazy_init()  # type: ignore[operator]


def is_sharded(policy: Policy) -> bool:
    """Whether weights are shared out."""
    return bool(_units(policy))


def trains_parts(policy: Policy) -> bool:
    """Whether what trains is shared out, too."""
    return hasattr(policy, "unshard")


def gather(policy: Policy) -> None:
    """Every rank holds every layer until `release`, for any number of forward passes; nothing if none is shared out."""
    for unit in _units(policy):
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()


def release(policy: Policy) -> None:
    """Back to a part of each layer per rank."""
    for unit in _units(policy):
        unit.set_reshard_after_forward(True, recurse=False)
        unit.reshard()


def _units(policy: Policy) -> list[Any]:
    """What is gathered as one: layers, and in full training all that is outside of them."""
    units = [policy, *decoder_layers(policy.causal_lm).values()]
    return [unit for unit in units if hasattr(unit, "unshard")]


@torch.no_grad()
def whole_weights(policy: Policy) -> dict[str, Tensor]:
    """The weights of a base that is shared out, by their names in the causal LM; every rank has to call it.

    They are gathered one by one, so a rank never holds more than the largest of them next to its own part.

    Returns:
        Tensors on the CPU, with those that two modules share as one; on ranks other than the first nothing.
    """
    first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    found: dict[str, Tensor] = {}
    known: dict[int, Tensor] = {}
    weights = policy.causal_lm.state_dict(keep_vars=True)
    for name, weight in weights.items():
        if id(weight) not in known:
            gathered = whole(weight.detach())
            known[id(weight)] = gathered.cpu() if first else gathered.new_empty(0)
        if first:
            found[name] = known[id(weight)]
    return found
