"""One line per rl_step on the terminal."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.text import Text

from lightning_mem1.data.task_data import TaskBatch, TaskDataModule
from lightning_mem1.training.module import Mem1Module


class ProgressCallback(Callback):
    """Prints step, reward, success, peak tokens, internal-state length, tokens/s, what raft kept and the time left.

    Args:
        show_loss: Also print the loss and the largest rollout gap.
    """

    def __init__(self, show_loss: bool = False) -> None:
        self.show_loss = show_loss
        self.console = Console(highlight=False, soft_wrap=True)
        self.first_val: float | None = None
        self.last_val: float | None = None
        self._started = self._step_started = 0.0
        self._steps = 0

    def on_fit_start(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Say what is about to run."""
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, TaskDataModule):
            trained = sum(p.numel() for p in pl_module.policy.parameters() if p.requires_grad)
            self._print(
                f"{pl_module.algorithm}, memory {pl_module.memory}, {data.tasks_per_step} tasks x {data.group_size} "
                f"episodes per rl_step, {trained:,} trained weights, {data.source.size('train'):,} training tasks"
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int) -> None:  # type: ignore[override]
        """Start the clock at the first rl_step (validation before it does not count)."""
        if not self._steps:
            self._started = time.perf_counter() - _rollout_seconds(trainer)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Mem1Module, outputs: Any, batch: TaskBatch, batch_idx: int
    ) -> None:
        """Print the line of an rl_step."""
        self._steps += 1
        if trainer.is_global_zero:
            self._print(self._line(trainer, pl_module))

    def on_validation_end(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Print the line of a validation."""
        metrics = trainer.callback_metrics
        if trainer.sanity_checking or "val/reward" not in metrics:
            return
        self.last_val = float(metrics["val/reward"])
        self.first_val = self.last_val if self.first_val is None else self.first_val
        if trainer.is_global_zero:
            num_tasks = len(trainer.datamodule.val_indices)  # type: ignore[attr-defined]
            text = (
                f"val  {pl_module.rl_step:>4}  reward {self.last_val:.3f}  success {_get(metrics, 'val/success'):.2f}  "
                f"peak {_get(metrics, 'val/peak_tokens_mean'):.0f} tokens  over {num_tasks} tasks, greedy"
            )
            self._print(text + self._baselines(metrics), "bold")

    def on_train_end(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Print where it started and where it ended."""
        if trainer.is_global_zero and self.first_val is not None and self.last_val is not None and self._steps:
            change = f"val reward {self.first_val:.2f} -> {self.last_val:.2f}"
            self._print(change + self._baselines(trainer.callback_metrics), "bold")

    def state_dict(self) -> dict[str, Any]:
        """The first validation, so that a resumed run still tells the whole way."""
        return {"first_val": self.first_val}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the first validation."""
        self.first_val = state_dict["first_val"]

    def _line(self, trainer: Trainer, module: Mem1Module) -> str:
        metrics = trainer.callback_metrics
        total = getattr(trainer.datamodule, "num_rl_steps", None)  # type: ignore[attr-defined]
        seconds = (time.perf_counter() - self._started) / self._steps
        line = (
            f"step {module.rl_step:>4}{f'/{total}' if total else ''}  reward {_get(metrics, 'rollout/reward'):.3f}  "
            f"success {_get(metrics, 'rollout/success'):.2f}  "
            f"peak {_get(metrics, 'memory/peak_tokens_mean'):.0f} tokens  "
            f"state {_get(metrics, 'memory/internal_state_mean'):.0f}  "
            f"{_get(metrics, 'rollout/tokens_per_s'):,.0f} tokens/s  {seconds:.1f} s/step"
        )
        if "train/kept_trajectories" in metrics:
            line += f"  kept {_get(metrics, 'train/kept_trajectories'):.0f}"
        if self.show_loss:
            gap = _get(metrics, "train/rollout_gap_max")
            line += f"  loss {_get(metrics, 'train/loss'):+.4f}  gap {gap:.1e}"
        return line + (f"  ETA {_clock(seconds * (total - module.rl_step))}" if total else "")

    def _baselines(self, metrics: dict[str, Any]) -> str:
        prefix = "val/baseline_"
        scores = [f"{k.removeprefix(prefix)} {float(v):.2f}" for k, v in metrics.items() if k.startswith(prefix)]
        return f"  ({', '.join(scores)})" if scores else ""

    def _print(self, line: str, style: str = "") -> None:
        self.console.print(Text(line, style=style))


def _rollout_seconds(trainer: Trainer) -> float:
    """Seconds of the rollout that has just been played (this callback comes after it)."""
    return _get(trainer.callback_metrics, "rollout/seconds", 0.0)


def _get(metrics: dict[str, Any], key: str, default: float = float("nan")) -> float:
    return float(metrics[key]) if key in metrics else default


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
