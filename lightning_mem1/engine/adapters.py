"""Gives servers the trained adapter, as vLLM loads one at run time (``/v1/load_lora_adapter``).

An adapter is named by its content: two processes of one run share it, two runs never meet under one name, and a server
that has it already is not troubled again. An untrained one changes nothing, so the base itself is asked in its place.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lightning_mem1.engine.completions import LOAD, UNLOAD
from lightning_mem1.engine.fleet import Fleet, Server, Trouble
from lightning_mem1.whole_file import whole_folder

if TYPE_CHECKING:
    from lightning_mem1.policy.policy import Policy


class Adapters:
    """The policy's adapter, as servers are to have it.

    Args:
        policy: Whose adapter.
        fleet: The servers.
        version: Says which rl_step the weights are of.
    """

    def __init__(self, policy: Policy, fleet: Fleet, version: Callable[[], int]) -> None:
        self.policy, self.fleet, self.current = policy, fleet, version
        self.name: str | None = None  # of the adapter now; None while it is the base
        self.version = 0
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._written: set[Path] = set()

    def publish(self) -> None:
        """Take the weights as they are now, and write them where servers find them.

        Raises:
            ValueError: the policy trains without an adapter, so there is nothing that could be handed over.
        """
        self.version = self.current()
        tensors = self.policy.policy_adapter()
        if not tensors and self.version:
            raise ValueError(
                "servers cannot be given whole models: expected a policy that trains an adapter, got full training; "
                "set model.lora, or serve the merged weights and name their folder as model.policy"
            )
        if not any(bool(tensor.any()) for name, tensor in tensors.items() if "lora_B" in name):
            self.name = None
            return
        self.name = f"mem1-{fingerprint(tensors)}"
        self._write(self._path(self.name))

    def give(self, server: Server) -> None:
        """See that a server has weights that are young enough, and drop older ones from it.

        Raises:
            Trouble: it did not take them.
        """
        with server.lock:
            if server.base is None:
                self.fleet.introduce(server)
            if server.version is not None and server.version + self.fleet.settings.max_staleness >= self.version:
                return
            before, server.version = server.adapter, None
            if self.name and self.name != before:
                self._load(server, self.name)
            server.adapter, server.version = self.name, self.version
            if before and before != self.name:
                self._unload(server, before)

    def staleness(self) -> int:
        """How many rl_steps the oldest weights of a server that is well lag behind."""
        known = [each.version for each in self.fleet.servers if each.version is not None and not each.troubles]
        return max((self.version - version for version in known), default=0)

    def tidy(self) -> None:
        """Delete what no server may still want to load."""
        wanted = {self.name} | {server.adapter for server in self.fleet.servers}
        for path in [each for each in self._written if each.parent.name not in wanted]:
            shutil.rmtree(path.parent, ignore_errors=True)
            self._written.discard(path)

    def _load(self, server: Server, name: str) -> None:
        try:
            self.fleet.call(server, LOAD, {"lora_name": name, "lora_path": str(self._path(name))})
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

    def _path(self, name: str) -> Path:
        """The folder that a server loads; it is the same on every machine."""
        if (given := self.fleet.settings.adapter_folder) is not None:
            return Path(given).expanduser().resolve() / name / "policy"
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="lightning_mem1-")
        return Path(self._temporary.name) / name / "policy"

    def _write(self, path: Path) -> None:
        """Other processes may write the very same one."""
        self._written.add(path)
        if not path.exists():
            with whole_folder(path.parent) as beside:
                self.policy.save_adapter(beside)


def fingerprint(tensors: dict[str, torch.Tensor]) -> str:
    """Twelve hex digits of an adapter's weights."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]
