"""A strategy that shares weights out among all ranks (FSDP2); see `policy.sharding` for what stays whole."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.optim import Optimizer

from lightning_mem1.policy.sharding import trains_parts
from lightning_mem1.training.checkpoint_shards import folder_of, has_parts, join, new_name, without_parts, write
from lightning_mem1.training.checkpoint_state import ENTRY
from lightning_mem1.training.lightning_internals import share_over_all_ranks


class ShardedBase(ModelParallelStrategy):
    """Lightning's strategy for FSDP2 over all ranks.

    With an adapter the frozen base is shared out. What trains is whole everywhere: unlike in Lightning's strategy, its
    state and that of the optimizer go into checkpoints as they are, and the base stays out of them. In full training
    (`model.lora` null) every rank has a part of weights, gradients and moments, and writes it by torch's distributed
    checkpoint, see `checkpoint_shards`. Any number of ranks resumes from it, under this strategy or another.

    Args:
        process_group_backend: gloo, nccl, or null for the device's own.
        timeout_s: How long a rank waits for the others.
    """

    def __init__(self, process_group_backend: str | None = None, timeout_s: float = 1800.0) -> None:
        super().__init__(
            tensor_parallel_size=1,
            process_group_backend=process_group_backend,
            timeout=timedelta(seconds=timeout_s),
        )
        self._written: tuple[tuple[int, int], Path] | None = None  # the shards written last, and after which steps

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """The module shares its weights out before, in `configure_model`."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """The optimizer's state is an ordinary one."""
        return True

    def setup_environment(self) -> None:
        """Meet the other ranks; the base is shared out over all of them."""
        share_over_all_ranks(self)
        super().setup_environment()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Nothing: the module puts what trains into the checkpoint itself."""
        return {}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """As of any other strategy."""
        return super(ModelParallelStrategy, self).optimizer_state(optimizer)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """As of any other strategy."""
        super(ModelParallelStrategy, self).load_optimizer_state_dict(checkpoint)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """As of any other strategy; in full training each rank reads what it has a part of."""
        module: Any = self.lightning_module
        if not trains_parts(module.policy):
            return super(ModelParallelStrategy, self).load_checkpoint(checkpoint_path, weights_only)
        content = TorchCheckpointIO().load_checkpoint(checkpoint_path, weights_only=True)
        return join(content, checkpoint_path, module.trained())

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """As of any other strategy: one file, written by the first rank; in full training next to every rank's part."""
        if has_parts(checkpoint):
            checkpoint = without_parts(checkpoint, self._shards(checkpoint, filepath))
        super(ModelParallelStrategy, self).save_checkpoint(checkpoint, filepath, storage_options)

    def _shards(self, checkpoint: dict[str, Any], filepath: Any) -> str:
        """The name of the folder with every rank's part; two checkpoints of one state share it."""
        rl_step = int(checkpoint[ENTRY]["rl_step"])
        now = (rl_step, int(checkpoint["global_step"]))
        there = self._written is not None and self._written[0] == now and self._written[1].is_dir()
        folder = self.broadcast(self._written[1] if there and self._written else folder_of(filepath, new_name(rl_step)))
        if not self.broadcast(there):
            write(checkpoint, folder)
        self._written = (now, folder)
        return folder.name


def num_shards(trainer: Mapping[str, Any]) -> int:
    """Over how many devices a trainer's config shares the base out; 1 where the config does not say."""
    strategy, devices = trainer["strategy"], trainer["devices"]
    name = str(getattr(strategy, "class_path", strategy))
    if not name.endswith("ShardedBase"):
        return 1
    return int(devices) * int(trainer["num_nodes"]) if str(devices).isdigit() else 1
