"""A strategy that shares the frozen base out among all ranks (FSDP2); see `policy.sharding` for what stays whole."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from torch.optim import Optimizer

from lightning_mem1.training.lightning_internals import share_over_all_ranks


class ShardedBase(ModelParallelStrategy):
    """Lightning's strategy for FSDP2 over all ranks. Only adapters train, and they are whole everywhere: unlike there,
    their state and that of the optimizer go into checkpoints as they are, and the base stays out of them.

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

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Adapters are there from the start."""
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
        """As of any other strategy."""
        return super(ModelParallelStrategy, self).load_checkpoint(checkpoint_path, weights_only)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """As of any other strategy: one file, written by the first rank."""
        super(ModelParallelStrategy, self).save_checkpoint(checkpoint, filepath, storage_options)


def num_shards(trainer: Mapping[str, Any]) -> int:
    """Over how many devices a trainer's config shares the base out; 1 where the config does not say."""
    strategy, devices = trainer["strategy"], trainer["devices"]
    name = str(getattr(strategy, "class_path", strategy))
    if not name.endswith("ShardedBase"):
        return 1
    return int(devices) * int(trainer["num_nodes"]) if str(devices).isdigit() else 1
