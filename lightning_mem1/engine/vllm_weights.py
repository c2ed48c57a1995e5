"""Gives whole weights to a vLLM engine that belongs to this process: by CUDA IPC on a GPU, else as a checkpoint.

Written against vLLM 0.30 (``vllm.distributed.weight_transfer``). Not run on a GPU.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_mem1.policy.parts import whole
from lightning_mem1.policy.policy import Policy
from lightning_mem1.policy.sharding import trains_parts, whole_weights
from lightning_mem1.policy.whole_weights import checkpoint_names, in_checkpoint_format

Named = Callable[[], Iterator[tuple[str, Tensor]]]


class EngineWeights:
    """The policy's weights, as a vLLM engine next to it is to have them.

    Args:
        policy: In full training.
        vllm: The engine.
    """

    def __init__(self, policy: Policy, vllm: Any) -> None:
        self.policy, self.vllm = policy, vllm
        self._sender: Any = None

    def send(self) -> None:
        """Give the engine the weights as they are now; every rank has to call it, each for its own engine."""
        if self.policy.device.type == "cuda":
            self._send_handles()
        else:
            self._reload()
        self.vllm.reset_prefix_cache()

    def _send_handles(self) -> None:
        """By handles to this process's memory, a buffer at a time."""
        if self._sender is None:
            from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
            from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

            info = IPCTrainerInitInfo(packed=True, rank=0)  # each rank has an engine of its own to send to
            source = source_of(lambda: streamed(self.policy))
            self._sender = WeightTransferTrainerFactory.trainer_init(info, client=_Client(self.vllm), source=source)
        self._sender.send_weights()

    def _reload(self) -> None:
        weights = whole_weights(self.policy) if trains_parts(self.policy) else None
        with tempfile.TemporaryDirectory(prefix="lightning_mem1-") as folder:
            self.policy.save(folder, weights)
            self.vllm.collective_rpc("reload_weights", kwargs={"weights_path": folder})


class _Client:
    """What vLLM's sender talks through: the engine's workers, as `vllm.LLM` talks to them."""

    def __init__(self, vllm: Any) -> None:
        self.vllm = vllm

    def init_weight_transfer_engine(self, init_info: Mapping[str, Any]) -> None:
        """Before the first weights."""
        self.vllm.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": dict(init_info)})

    def start_weight_update(self) -> None:
        """Before the weights."""
        self.vllm.collective_rpc("start_weight_update")

    def update_weights(self, update_info: Any) -> None:
        """Names, shapes and handles."""
        self.vllm.collective_rpc("update_weights", kwargs={"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """After the weights."""
        self.vllm.collective_rpc("finish_weight_update")


def streamed(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors as a checkpoint has them, one by one and whole; ranks have to step through together."""
    if not trains_parts(policy):
        yield from in_checkpoint_format(policy)
        return
    known: set[int] = set()
    for name, weight in policy.causal_lm.state_dict(keep_vars=True).items():
        if id(weight) not in known:
            known.add(id(weight))
            yield from checkpoint_names(policy, {name: whole(weight.detach())}).items()


def source_of(weights: Named) -> Any:
    """What vLLM's senders read: names, dtypes and shapes beforehand, then tensors on this process's GPU, one by one."""
    from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource

    class Source(WeightSource):  # type: ignore[misc]
        def metadata(self) -> list[Any]:
            return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in weights()]

        def __iter__(self) -> Iterator[tuple[str, Tensor]]:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            return ((name, tensor.detach().to(device)) for name, tensor in weights())

    return Source()
