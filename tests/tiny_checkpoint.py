"""A module of the tiny policy, and the checkpoint that a training wrote of it after one rl_step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from lightning_mem1.callbacks import RLCheckpoint, RolloutCallback
from lightning_mem1.data.task_data import TaskDataModule
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.training.trainer import trainer_defaults
from tiny_tasks import RankedTasks


def tiny_checkpoint(policy: Path, folder: Path) -> tuple[Mem1Module, dict[str, Any]]:
    """The module, and the content of its checkpoint, which is written into a folder."""
    module = Mem1Module(
        str(policy),
        lora={"r": 4},  # type: ignore[arg-type]
        engine=EngineSettings(num_slots=8, max_context_tokens=160, self_check=False),
        rollout=RolloutSettings(max_new_tokens=6, max_information_tokens=40, prompt="brief"),
    )
    data = TaskDataModule(RankedTasks(), tasks_per_step=2, group_size=3, num_rl_steps=1, num_val_tasks=0)
    checkpoint = RLCheckpoint(str(folder), save_adapter=False)
    plain = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "default_root_dir": str(folder)}
    trainer = Trainer(**trainer_defaults(**plain, callbacks=[RolloutCallback(), checkpoint]))
    trainer.fit(module, datamodule=data)
    return module, torch.load(checkpoint.last_path, weights_only=True)
