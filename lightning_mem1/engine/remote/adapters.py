"""Gives servers the trained adapter, as vLLM loads one at run time (``/v1/load_lora_adapter``).

A server that has it already is not troubled again. An untrained one changes nothing, so the base itself is asked in its
place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lightning_mem1.engine.adapter_folders import AdapterFolders
from lightning_mem1.engine.protocol.client import LOAD, MODELS, PATH, UNLOAD, UPLOAD, Reply, question, read_reply
from lightning_mem1.engine.remote.probe import TEXT, Probe, probe_of
from lightning_mem1.engine.remote.servers import Server, ServerPool, Trouble
from lightning_mem1.policy.adapter_upload import packed
from lightning_mem1.policy.sharding import is_sharded
from lightning_mem1.types import GenerationRequest

if TYPE_CHECKING:
    from lightning_mem1.policy.policy import Policy

ALLOWED = "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"


class Adapters:
    """The policy's adapter, as servers are to have it.

    Args:
        policy: Whose adapter.
        fleet: The servers.
        version: Says which rl_step the weights are of.
    """

    def __init__(self, policy: Policy, fleet: ServerPool, version: Callable[[], int]) -> None:
        self.policy, self.fleet = policy, fleet
        self.probe: Probe | None = None  # of the adapter now
        self.folders = AdapterFolders(policy, version, fleet.settings.adapter_folder)

    def publish(self) -> None:
        """Take the weights as they are now, and write them where servers find them; see `AdapterFolders`."""
        before = self.folders.name
        self.folders.publish()
        if self.folders.name != before:
            known = self.folders.name is not None and not is_sharded(self.policy)
            self.probe = probe_of(self.policy, self.probe) if known else None

    @contextmanager
    def naming(self, server: Server) -> Iterator[str]:
        """What a turn asks a server for; as long as a turn names an adapter, it is not dropped.

        Raises:
            Trouble: the server did not take the adapter.
        """
        with server.lock:
            self._give(server)
            adapter = server.adapter
            server.naming[adapter] += 1
        try:
            yield adapter or str(server.base)
        finally:
            with server.lock:
                server.naming[adapter] -= 1
                self._drop(server)

    def give(self, server: Server) -> None:
        """See that a server has weights that are fresh enough, and no fresher ones; drop others from it.

        Raises:
            Trouble: it did not take them, or does not act with them.
        """
        with server.lock:
            self._give(server)

    def _give(self, server: Server) -> None:
        name, version = self.folders.name, self.folders.version
        if server.base is None:
            self.fleet.introduce(server)
        oldest = version - self.fleet.settings.max_staleness
        if server.version is not None and oldest <= server.version <= version:
            return
        before, server.version = server.adapter, None
        if before and before != name:
            server.retired.add(before)
            self._drop(server)  # first, where no turn names it: there may be room for one alone
        if name and name != before:
            server.adapter = None
            self._load(server, name)
        server.retired.discard(name or "")
        server.adapter, server.version = name, version

    def staleness(self) -> int:
        """How many rl_steps the oldest weights of a server that is well lag behind."""
        known = [each.version for each in self.fleet.servers if each.version is not None and not each.troubles]
        return max((self.folders.version - version for version in known), default=0)

    def tidy(self) -> None:
        """Delete what no server may still want to load."""
        self.folders.tidy({name for server in self.fleet.servers for name in (server.adapter, *server.retired)})

    def _load(self, server: Server, name: str) -> None:
        try:
            if not (server.uploads and self.folders.root is None and self._upload(server, name)):
                self.fleet.call(server, LOAD, {"lora_name": name, "lora_path": str(self.folders.path(name))})
        except Trouble as error:
            taken = error.status == 400 and "already" in str(error)
            if not taken and not (error.status and self._resolves(server, name)):
                room = self.fleet.settings.max_staleness + 1
                hint = f"; vLLM takes adapters with --enable-lora --max-loras {room} and {ALLOWED}"
                raise Trouble(f"{error} for the adapter{hint if error.status else ''}", error.status) from None
        self._check(server, name)

    def _resolves(self, server: Server, name: str) -> bool:
        """Whether a server finds an adapter by its name, as vLLM's LoRA resolvers do in folders of its own machine."""
        if server.is_own or self.folders.root is None:
            return False
        ids = list(self.policy.tokenizer.encode(TEXT, add_special_tokens=False))[:4]
        try:
            self.fleet.call(server, PATH, question(GenerationRequest(-1, ids, 1), name))
        except Trouble:
            return False
        return True

    def _upload(self, server: Server, name: str) -> bool:
        """Send the files, unless another rank has done so: no folder is named that both see. False: it takes none."""
        offered = self.fleet.call(server, MODELS, timeout_s=self.fleet.look_s)
        if name in [each.get("id") for each in offered["data"]]:
            return True
        question = {"lora_name": name, "files": packed(self.folders.path(name))}
        try:
            self.fleet.call(server, UPLOAD, question, self.fleet.settings.transfer_timeout_s)
        except Trouble as error:
            if error.status == 404:
                return False
            raise
        return True

    def _check(self, server: Server, name: str) -> None:
        """See that an adapter that was taken acts."""

        def ask(request: GenerationRequest) -> Reply:
            reply = self.fleet.call(server, PATH, question(request, name))
            try:
                return read_reply(reply, request, self.policy.config.vocab_size)
            except ValueError as error:
                raise Trouble(f"nonsense from {server.url}: {error}") from None

        if self.probe is None or self.fleet.settings.text:
            return
        if shown := self.probe.serves_other(ask, server.max_tokens):
            self._unload(server, name)
            raise Trouble(
                f"{server.url} took the adapter '{name}' and still serves {shown}; start it again with LoRA enabled "
                f"(vLLM: --enable-lora and {ALLOWED})"
            )

    def _drop(self, server: Server) -> None:
        """Unload the adapters that are not served any more and that no turn names."""
        for name in [each for each in server.retired if not server.naming[each]]:
            server.retired.discard(name)
            self._unload(server, name)

    def _unload(self, server: Server, name: str) -> None:
        try:
            self.fleet.call(server, UNLOAD, {"lora_name": name}, timeout_s=self.fleet.look_s)
        except Trouble:
            return  # an adapter too many is no harm; the server itself will be noticed by its next turn
