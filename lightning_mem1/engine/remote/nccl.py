"""Sends whole weights from the GPU that trains to those of a vLLM server, by vLLM's own transfer over NCCL.

Written against vLLM 0.30 (``vllm.distributed.weight_transfer``). Not run: it needs two GPUs.
"""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

from lightning_mem1.engine.remote.servers import Server
from lightning_mem1.engine.remote.weight_routes import VllmRoutes
from lightning_mem1.engine.vllm_version import check_installed
from lightning_mem1.engine.vllm_weights import Named, source_of


class NcclSender:
    """A group of this process and the processes of one server; a server that is lost disturbs no other one.

    Args:
        server: Which server.
        routes: Its control.
        weights: Gives names and tensors, on any device, in the same order each time.
    """

    def __init__(self, server: Server, routes: VllmRoutes, weights: Named) -> None:
        check_installed("model.engine.server.transfer nccl")
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        self.routes = routes
        parts = urlsplit(server.url)
        address = address_towards(str(parts.hostname), parts.port or 80)
        info = NCCLTrainerInitInfo(address, free_port(), 1 + routes.world_size(), rank=0)
        self.engine: Any = WeightTransferTrainerFactory.trainer_init(info, client=routes, source=source_of(weights))

    def send(self, name: str) -> None:
        """Send the weights as they are now, while the server generates nothing."""
        with self.routes.still():
            self.engine.send_weights()
            self.routes.committed(name)


def address_towards(host: str, port: int) -> str:
    """The address of this machine that another one reaches it by: that of the way there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:  # nothing is sent
        way.connect((host, port))
        return str(way.getsockname()[0])


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])
