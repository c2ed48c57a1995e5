"""Shared fixtures: a tiny random policy on disk, a run of it, one MLflow store for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Qwen2 with its tokenizer, saved as safetensors."""
    from tiny import tiny_policy

    folder = tmp_path_factory.mktemp("policy")
    tiny_policy().save(folder)
    return folder


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One sqlite store for all tests: a fresh one takes seconds to make."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def make_module(tiny_folder: Path) -> Callable[..., Any]:
    """Makes a Mem1Module of the tiny policy; keyword arguments override."""

    def make(**overrides: Any) -> Any:
        from lightning_mem1.engine.local.engine import EngineSettings
        from lightning_mem1.policy.policy import LoraSettings
        from lightning_mem1.rollout.settings import RolloutSettings
        from lightning_mem1.training.module import Mem1Module

        settings: dict[str, Any] = {
            "policy": str(tiny_folder),
            "lr": 1e-2,
            "lora": LoraSettings(r=4, alpha=8),
            "engine": EngineSettings(num_slots=8, max_context_tokens=160, self_check=False),
            "rollout": RolloutSettings(max_new_tokens=6, max_information_tokens=40, prompt="brief"),
            "seed": 0,
        }
        return Mem1Module(**{**settings, **overrides})

    return make


@pytest.fixture
def make_data() -> Callable[..., Any]:
    """Makes a TaskDataModule of two tasks x three episodes per rl_step; keyword arguments override."""

    def make(source: Any = None, **overrides: Any) -> Any:
        from lightning_mem1.data.task_data import TaskDataModule
        from tiny_tasks import RankedTasks

        settings = {"tasks_per_step": 2, "group_size": 3, "num_rl_steps": 3, "num_val_tasks": 4, "seed": 0}
        return TaskDataModule(source or RankedTasks(), **{**settings, **overrides})

    return make


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Any]:
    """Trains on the CPU with the callbacks given (rollouts come by themselves); returns the trainer."""

    def run(module: Any, data: Any, *callbacks: Any, ckpt_path: str | None = None, **overrides: Any) -> Any:
        from lightning.pytorch import Trainer

        from lightning_mem1.callbacks import RolloutCallback
        from lightning_mem1.cli.startup import quiet
        from lightning_mem1.training.trainer import TRAINER_DEFAULTS

        settings = {
            **TRAINER_DEFAULTS,
            "accelerator": "cpu",
            "default_root_dir": str(tmp_path),
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "deterministic": True,
        }
        rollouts = [] if any(isinstance(c, RolloutCallback) for c in callbacks) else [RolloutCallback()]
        with quiet():
            trainer = Trainer(**{**settings, "callbacks": [*rollouts, *callbacks], **overrides})
            trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        return trainer

    return run


@pytest.fixture
def config(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small config in an empty working folder."""
    import yaml

    from tiny_tasks import tiny_config

    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_config(str(tiny_folder))))
    monkeypatch.chdir(tmp_path)
    return str(path)


@pytest.fixture
def server() -> Any:
    """A loopback server that answers as it is told."""
    from faulty import faulty

    with faulty() as state:
        yield state


@pytest.fixture(scope="session")
def world() -> Any:
    from lightning_mem1.environments.qa.encyclopedia.world import Encyclopedia

    return Encyclopedia(seed=3, num_passages=600)


@pytest.fixture(scope="session")
def library(world: Any) -> Any:
    from lightning_mem1.environments.qa.retrieval.bm25 import BM25

    return BM25(world.passages)
