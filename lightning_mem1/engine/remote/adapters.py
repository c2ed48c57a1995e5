"""Gives servers the trained adapter, as vLLM loads one at run time (``/v1/load_lora_adapter``).

A server that has it already is not troubled again. An untrained one changes nothing, so the base itself is asked in its
place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lightning_mem1.engine.adapter_folders import AdapterFolders
from lightning_mem1.engine.protocol.client import LOAD, UNLOAD
from lightning_mem1.engine.remote.servers import Server, ServerPool, Trouble

if TYPE_CHECKING:
    from lightning_mem1.policy.policy import Policy


class Adapters:
    """The policy's adapter, as servers are to have it.

    Args:
        policy: Whose adapter.
        fleet: The servers.
        version: Says which rl_step the weights are of.
    """

    def __init__(self, policy: Policy, fleet: ServerPool, version: Callable[[], int]) -> None:
        self.fleet = fleet
        self.folders = AdapterFolders(policy, version, fleet.settings.adapter_folder)

    def publish(self) -> None:
        """Take the weights as they are now, and write them where servers find them; see `AdapterFolders`."""
        self.folders.publish()

    def give(self, server: Server) -> None:
        """See that a server has weights that are young enough, and no younger ones; drop others from it.

        Raises:
            Trouble: it did not take them.
        """
        with server.lock:
            name, version = self.folders.name, self.folders.version
            if server.base is None:
                self.fleet.introduce(server)
            oldest = version - self.fleet.settings.max_staleness
            if server.version is not None and oldest <= server.version <= version:
                return
            before, server.version = server.adapter, None
            if name and name != before:
                self._load(server, name)
            server.adapter, server.version = name, version
            if before and before != name:
                self._unload(server, before)

    def staleness(self) -> int:
        """How many rl_steps the oldest weights of a server that is well lag behind."""
        known = [each.version for each in self.fleet.servers if each.version is not None and not each.troubles]
        return max((self.folders.version - version for version in known), default=0)

    def tidy(self) -> None:
        """Delete what no server may still want to load."""
        self.folders.tidy([server.adapter for server in self.fleet.servers])

    def _load(self, server: Server, name: str) -> None:
        try:
            self.fleet.call(server, LOAD, {"lora_name": name, "lora_path": str(self.folders.path(name))})
        except Trouble as error:
            if error.status == 400 and "already" in str(error):
                return
            hint = "; vLLM takes adapters with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"
            raise Trouble(f"{error} for the adapter{hint if error.status == 404 else ''}", error.status) from None

    def _unload(self, server: Server, name: str) -> None:
        try:
            self.fleet.call(server, UNLOAD, {"lora_name": name})
        except Trouble:
            return  # an adapter too many is no harm; the server itself will be noticed by its next turn
