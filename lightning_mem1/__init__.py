"""Train and evaluate agents that manage their own context (MEM1 first), with PyTorch Lightning.

The public API. A name is imported when it is first asked for (PEP 562), so that ``import lightning_mem1`` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_mem1.callbacks import default_callbacks
    from lightning_mem1.callbacks.transcripts import known_advantages
    from lightning_mem1.data.agents import AgentData
    from lightning_mem1.data.qa import QAData
    from lightning_mem1.data.reading import ReadingData
    from lightning_mem1.data.task_data import TaskDataModule
    from lightning_mem1.data.webshop import WebShopData
    from lightning_mem1.engine.settings import EngineSettings
    from lightning_mem1.evaluation.player import Player
    from lightning_mem1.evaluation.report.notebook import context_parts, plot_advantages, plot_curve, plot_masks
    from lightning_mem1.evaluation.transcript import readable, transcript
    from lightning_mem1.rollout.collect import Episode, collect
    from lightning_mem1.rollout.settings import RolloutSettings
    from lightning_mem1.testing import check_env, check_memory
    from lightning_mem1.training.layouts.collate import collate
    from lightning_mem1.training.loading import load_policy
    from lightning_mem1.training.module import Mem1Module
    from lightning_mem1.training.trainer import trainer_defaults
    from lightning_mem1.types import Env, Objective, StepResult, Task, TaskSource, Trajectory, Turn

__version__ = "0.1.0"

_HOMES = {  # module below this package: the public names in it
    "callbacks": ("default_callbacks",),
    "callbacks.transcripts": ("known_advantages",),
    "data.agents": ("AgentData",),
    "data.qa": ("QAData",),
    "data.reading": ("ReadingData",),
    "data.task_data": ("TaskDataModule",),
    "data.webshop": ("WebShopData",),
    "engine.settings": ("EngineSettings",),
    "evaluation.player": ("Player",),
    "evaluation.report.notebook": ("context_parts", "plot_advantages", "plot_curve", "plot_masks"),
    "evaluation.transcript": ("readable", "transcript"),
    "rollout.collect": ("Episode", "collect"),
    "rollout.settings": ("RolloutSettings",),
    "testing": ("check_env", "check_memory"),
    "training.layouts.collate": ("collate",),
    "training.loading": ("load_policy",),
    "training.module": ("Mem1Module",),
    "training.trainer": ("trainer_defaults",),
    "types": ("Env", "Objective", "StepResult", "Task", "TaskSource", "Trajectory", "Turn"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AgentData",
    "EngineSettings",
    "Env",
    "Episode",
    "Mem1Module",
    "Objective",
    "Player",
    "QAData",
    "ReadingData",
    "RolloutSettings",
    "StepResult",
    "Task",
    "TaskDataModule",
    "TaskSource",
    "Trajectory",
    "Turn",
    "WebShopData",
    "check_env",
    "check_memory",
    "collate",
    "collect",
    "context_parts",
    "default_callbacks",
    "known_advantages",
    "load_policy",
    "plot_advantages",
    "plot_curve",
    "plot_masks",
    "readable",
    "trainer_defaults",
    "transcript",
]


def __getattr__(name: str) -> Any:
    """A public name, imported now."""
    if name not in _HOME:
        raise AttributeError(f"module 'lightning_mem1' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"lightning_mem1.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
