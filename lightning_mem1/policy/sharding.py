"""The frozen base shared out among ranks (FSDP2): each keeps a part of every layer, and gathers a layer to use it.

Adapters, embeddings, norms outside of layers and the head stay whole on every rank: what trains are ordinary tensors,
so gradients, optimizer and checkpoints are those of any other run. Gathering is a meeting of all ranks: each has to
take the same number of forward and backward passes, and for rollouts, whose lengths differ, layers are gathered before.
"""

from __future__ import annotations

from typing import Any

from lightning_mem1.policy.backbone import decoder_layers
from lightning_mem1.policy.policy import Policy


def shard(policy: Policy, mesh: Any) -> None:
    """Share the frozen weights of each decoder layer out over a one-dimensional device mesh.

    Raises:
        ValueError: full training, or a base in 4 bits.
    """
    if policy.model is policy.causal_lm:
        raise ValueError("nothing frozen to share out: expected an adapter, got full training; set model.lora")
    if getattr(policy.causal_lm, "is_quantized", False):
        raise ValueError(
            "a base in 4 bits cannot be shared out: expected whole weights; set model.compute.quantization none, or "
            "trainer.strategy ddp"
        )
    from torch.distributed.fsdp import fully_shard

    for layer in decoder_layers(policy.causal_lm).values():
        trained = {parameter for parameter in layer.parameters() if parameter.requires_grad}
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=trained)


def is_sharded(policy: Policy) -> bool:
    """Whether the base is shared out."""
    return bool(_layers(policy))


def gather(policy: Policy) -> None:
    """Every rank holds every layer until `release`, for any number of forward passes; nothing if none is shared out."""
    for layer in _layers(policy):
        layer.set_reshard_after_forward(False)
        layer.unshard()


def release(policy: Policy) -> None:
    """Back to a part of each layer per rank."""
    for layer in _layers(policy):
        layer.set_reshard_after_forward(True)
        layer.reshard()


def _layers(policy: Policy) -> list[Any]:
    return [layer for layer in decoder_layers(policy.causal_lm).values() if hasattr(layer, "unshard")]
