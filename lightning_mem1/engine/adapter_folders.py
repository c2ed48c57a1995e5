"""The policy's adapter as folders on disk, for whoever loads it from there.

An adapter is named by its content: two processes of one run share a folder, and two runs never meet under one name. An
untrained one changes nothing, so it has no name: the base itself is what acts.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lightning_mem1.io.atomic_files import atomic_folder

if TYPE_CHECKING:
    from lightning_mem1.policy.policy import Policy

FROM_ZERO = ("lora_B", "lora_embedding_A")  # weights that are 0 until an adapter has been trained


class AdapterFolders:
    """Writes the policy's adapter as it is, and deletes what is not wanted any more.

    Args:
        policy: Whose adapter.
        version: Says which rl_step the weights are of.
        root: Where to write, the same path on every machine; None for a temporary folder of this one.
    """

    def __init__(self, policy: Policy, version: Callable[[], int], root: str | None = None) -> None:
        self.policy, self.current, self.root = policy, version, root
        self.name: str | None = None  # of the adapter now; None while it is the base
        self.version = 0
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._written: set[Path] = set()

    def publish(self) -> None:
        """Take the weights as they are now, and write them.

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
        if not any(bool(tensor.any()) for name, tensor in tensors.items() if any(part in name for part in FROM_ZERO)):
            self.name = None
            return
        self.name = f"mem1-{fingerprint(tensors)}"
        self._write(self.path(self.name))

    def path(self, name: str) -> Path:
        """The folder of an adapter; it is the same on every machine."""
        if self.root is not None:
            return Path(self.root).expanduser().resolve() / name
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="lightning_mem1-")
        return Path(self._temporary.name) / name

    def tidy(self, wanted: Collection[str | None]) -> None:
        """Delete what this process wrote, but for the adapter now and those that are wanted."""
        for path in [each for each in self._written if each.name not in {self.name, *wanted}]:
            shutil.rmtree(path, ignore_errors=True)
            self._written.discard(path)

    def _write(self, path: Path) -> None:
        """Other processes may write the very same one."""
        self._written.add(path)
        if not path.exists():
            with atomic_folder(path) as beside:
                self.policy.save_adapter(beside)


def fingerprint(tensors: dict[str, torch.Tensor]) -> str:
    """Twelve hex digits of an adapter's weights."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]
