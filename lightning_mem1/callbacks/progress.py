"""One line per rl_step on the terminal, and while one runs how far it has come."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from rich.console import Console
from rich.text import Text

from lightning_mem1.callbacks.collector import RolloutProgress
from lightning_mem1.callbacks.rollout import RolloutCallback
from lightning_mem1.callbacks.step_bar import StepBar
from lightning_mem1.checks import check_numbers
from lightning_mem1.data.task_data import TaskBatch, TaskDataModule
from lightning_mem1.training.module import Mem1Module


class ProgressCallback(Callback):
    """Prints step, reward, success, peak tokens, internal-state length, tokens/s, what raft kept and the time left.

    With `trainer.enable_progress_bar` it takes the place of Lightning's bar, which counts rl_steps alone: a bar shows
    the episodes and turns that are played, then the micro-batches that are learnt from. Where the output is no terminal
    a plain line says so, once nothing has been printed for `plain_every_s`.

    Args:
        show_loss: Also print the loss and the largest rollout gap.
        plain_every_s: Seconds between two plain lines, and between one and any other line.
    """

    def __init__(self, show_loss: bool = False, plain_every_s: float = 30.0) -> None:
        check_numbers("ProgressCallback", ProgressCallback, locals())
        self.show_loss = show_loss
        self.console = Console(highlight=False, soft_wrap=True)
        self.bar = StepBar(self.console, plain_every_s)
        self.first_val: float | None = None
        self.last_val: float | None = None
        self._started = self._step_started = 0.0
        self._steps = 0

    def setup(self, trainer: Trainer, pl_module: Mem1Module, stage: str) -> None:  # type: ignore[override]
        """Take the place of Lightning's bar where one is asked for; a bar of the user's own stays alone."""
        given = trainer.progress_bar_callback
        asked = given is not None and type(given) in (RichProgressBar, TQDMProgressBar)
        if given is not None and asked:
            given.disable()
        self._watch(trainer, pl_module, asked and trainer.is_global_zero)

    def on_fit_start(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Say what is about to run."""
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, TaskDataModule):
            trained = sum(p.numel() for p in pl_module.policy.parameters() if p.requires_grad)
            self._print(
                f"{pl_module.algorithm}, memory {pl_module.memory}, {data.tasks_per_step} tasks x {data.group_size} "
                f"episodes per rl_step, {trained:,} trained weights, {data.source.size('train'):,} training tasks; in "
                f"the loss {_unit(pl_module)}"
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

    def on_exception(self, trainer: Trainer, pl_module: Mem1Module, exception: BaseException) -> None:  # type: ignore[override]
        """Leave no bar behind."""
        self.bar.clear()

    def teardown(self, trainer: Trainer, pl_module: Mem1Module, stage: str) -> None:  # type: ignore[override]
        """Leave no bar behind, and watch nothing any more."""
        self._watch(trainer, pl_module, False)
        self.bar.clear()

    def state_dict(self) -> dict[str, Any]:
        """The first validation, so that a resumed run still reports the change from it."""
        return {"first_val": self.first_val}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the first validation."""
        self.first_val = state_dict["first_val"]

    def _watch(self, trainer: Trainer, module: Mem1Module, shown: bool) -> None:
        """Take in what is played and learned from, or that nothing is any more."""

        def show_rollout(progress: RolloutProgress) -> None:
            self._show_rollout(trainer, module, progress)

        def show_update(done: int, total: int) -> None:
            self.bar.show(f"{_step(trainer, module.rl_step + 1)}  updating", done, total, "micro-batches")

        for each in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(each, RolloutCallback):
                each.watch = show_rollout if shown else None
        module.watch(show_update if shown else None)

    def _show_rollout(self, trainer: Trainer, module: Mem1Module, progress: RolloutProgress) -> None:
        """Show what is played; not what is played for the next rl_step while this one is updated."""
        if trainer.validating:
            stage = f"val  {progress.rl_step:>4}  playing"
        elif progress.rl_step == module.rl_step + 1:
            stage = f"{_step(trainer, progress.rl_step)}  playing"
        else:
            return
        self.bar.show(stage, progress.num_ended, progress.num_episodes, f"episodes, {progress.num_turns} turns")

    def _line(self, trainer: Trainer, module: Mem1Module) -> str:
        metrics = trainer.callback_metrics
        total = getattr(trainer.datamodule, "num_rl_steps", None)  # type: ignore[attr-defined]
        seconds = (time.perf_counter() - self._started) / self._steps
        line = (
            f"{_step(trainer, module.rl_step)}  reward {_get(metrics, 'rollout/reward'):.3f}  "
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
        self.bar.clear()
        self.console.print(Text(line, style=style))


def _unit(module: Mem1Module) -> str:
    """``every token counts the same, in its paper every trajectory``."""
    unit, paper = module.policy_loss.unit, module.credit_assigner.algorithm.paper_unit
    return f"every {unit} counts the same" + (f", in its paper every {paper}" if paper not in (None, unit) else "")


def _step(trainer: Trainer, rl_step: int) -> str:
    """``step    3/60``."""
    total = getattr(trainer.datamodule, "num_rl_steps", None)  # type: ignore[attr-defined]
    return f"step {rl_step:>4}{f'/{total}' if total else ''}"


def _rollout_seconds(trainer: Trainer) -> float:
    """Seconds of the rollout that has just been played (this callback comes after it)."""
    return _get(trainer.callback_metrics, "rollout/seconds", 0.0)


def _get(metrics: dict[str, Any], key: str, default: float = float("nan")) -> float:
    return float(metrics[key]) if key in metrics else default


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
