"""Plays the tasks of a batch right before the step that learns from them, and ends the run by rl_steps.

Put it first among the callbacks: the others read the trajectories that it leaves on the batch. An environment that
cannot even be made ends its own episode, like one that fails while it is played. Sampling sees no global
random state: each trajectory has a seed made of the run's seed, the rl_step, the task's position and its own number, so
it is the same whatever the number of ranks.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from lightning_mem1.datamodule import TaskBatch, TaskDataModule
from lightning_mem1.engine.server import ServerEngine
from lightning_mem1.module import Mem1Module
from lightning_mem1.policy.sharded import gather, release
from lightning_mem1.rollout import Episode, RolloutSettings, collect
from lightning_mem1.screening import silent_groups
from lightning_mem1.types import Engine, Env, StepResult, Task, TaskSource, Trajectory

MAX_SERVER_GAP = 0.05  # nats; bfloat16 kernels stay well below, another temperature or base does not


class BrokenEnv:
    """Stands for an environment that could not be made; says so as soon as it is looked at."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def observe(self) -> str:
        """Raise what went wrong."""
        raise self.error

    def step(self, action: str) -> StepResult:
        """Raise what went wrong."""
        raise self.error


class RolloutCallback(Callback):
    """Fills `batch.trajectories`: `group_size` sampled episodes per task in training, one greedy episode in validation.

    Logs, by rl_step: ``rollout/seconds`` (wall clock of this rank), ``rollout/num_episodes`` (of this rank),
    ``rollout/tokens_per_s`` (generated tokens of this rank per second), ``rollout/resampled_groups`` (of this rank:
    groups without a signal that were played again, see `model.resample_rounds`; their first episodes are dropped and do
    not count elsewhere); with servers also, of this rank since the start, ``rollout/server_retries`` (tries after the
    first), ``rollout/server_nonsense`` (replies that were not to the point), ``rollout/server_failed_turns`` (given up:
    their episodes ended with an error), and ``rollout/server_staleness`` (rl_steps that served weights lag behind).

    Args:
        validate_first: Validate before the first rl_step, so that a curve starts at the untrained policy.
        validate_last: Validate after the last rl_step, if that was not just done.
    """

    def __init__(self, validate_first: bool = True, validate_last: bool = True) -> None:
        self.validate_first, self.validate_last = validate_first, validate_last
        self.num_tokens, self.seconds = 0, 0.0
        self._validated_at = -1  # rl_step of the last validation that ran to its end
        self._val_batches: list[TaskBatch] = []

    def on_train_start(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Validate the policy as it came, and a resumed one if it was stopped before its validation was done."""
        self._stop_when_done(trainer, pl_module)
        if pl_module.rl_step == 0:
            due = self.validate_first
        else:  # nothing is due at the end of the run: `on_train_end` sees to it
            due = not trainer.should_stop and self._validated_at != pl_module.rl_step and _is_val_step(trainer)
        if due:
            self._validate(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Validate the policy as it goes."""
        if self.validate_last and self._validated_at != pl_module.rl_step:
            self._validate(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int) -> None:  # type: ignore[override]
        """Play the training tasks."""
        data = _datamodule(trainer)
        started = time.perf_counter()
        gather(pl_module.policy)
        batch.trajectories = self._play(pl_module, data, batch, data.group_size, pl_module.rollout_settings)
        num_tokens, resampled = self.num_tokens, 0
        for again in range(1, pl_module.resample_rounds + 1):
            silent = silent_groups(batch.trajectories)
            fresh = self._play(
                pl_module, data, _part(batch, silent), data.group_size, pl_module.rollout_settings, again
            )
            num_tokens, resampled = num_tokens + self.num_tokens, resampled + len(silent)
            batch.trajectories = replaced(batch.trajectories, fresh)
        release(pl_module.policy)
        self.num_tokens, self.seconds = num_tokens, time.perf_counter() - started
        metrics = {
            "rollout/resampled_groups": float(resampled),
            "rollout/seconds": self.seconds,
            "rollout/num_episodes": float(len(batch.trajectories)),
            "rollout/tokens_per_s": self.num_tokens / max(self.seconds, 1e-9),
        }
        if isinstance(pl_module.engine, ServerEngine):
            metrics |= {f"rollout/server_{name}": number for name, number in pl_module.engine.numbers().items()}
        pl_module.log_dict(metrics, on_step=True, on_epoch=False, batch_size=1)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Mem1Module, outputs: Any, batch: TaskBatch, batch_idx: int
    ) -> None:
        """End the run by rl_steps, whatever Lightning counts; say when servers report another policy's numbers."""
        self._stop_when_done(trainer, pl_module)
        _check_servers(pl_module.engine, float(trainer.callback_metrics.get("train/rollout_gap_mean", 0.0)))

    def on_validation_start(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Get ready to play; ranks may have different numbers of batches."""
        gather(pl_module.policy)

    def on_validation_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Play validation tasks greedily."""
        batch.rl_step = pl_module.rl_step
        self._val_batches.append(batch)
        greedy = dataclasses.replace(pl_module.rollout_settings, temperature=0.0, top_p=1.0)
        batch.trajectories = self._play(pl_module, _datamodule(trainer), batch, 1, greedy)

    def on_validation_end(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Let go of what was played: the batches live as long as the run."""
        release(pl_module.policy)
        self._validated_at = pl_module.rl_step
        for batch in self._val_batches:
            batch.trajectories = []
        self._val_batches = []

    def state_dict(self) -> dict[str, int]:
        """Where the last validation was."""
        return {"validated_at": self._validated_at}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Take up where the last validation was."""
        self._validated_at = state_dict["validated_at"]

    def _play(
        self,
        module: Mem1Module,
        data: TaskDataModule,
        batch: TaskBatch,
        group_size: int,
        settings: RolloutSettings,
        again: int = 0,
    ) -> list[Trajectory]:
        started = time.perf_counter()
        episodes = [
            Episode(
                task,
                make_env(data.source, task),
                position,
                trajectory_seed(module.seed, batch.rl_step, position, sample),
            )
            for task, position in zip(batch.tasks, batch.positions, strict=True)
            for sample in range(again * group_size, (again + 1) * group_size)
        ]
        training = module.policy.training
        module.policy.eval()
        try:
            with torch.no_grad():
                trajectories = collect(
                    episodes, module.engine, module.policy.tokenizer, settings, module.memory, module.window
                )
        finally:
            module.policy.train(training)
        self.seconds = time.perf_counter() - started
        self.num_tokens = sum(len(turn.action_ids) for t in trajectories for turn in t.turns)
        return trajectories

    def _stop_when_done(self, trainer: Trainer, module: Mem1Module) -> None:
        limit = _datamodule(trainer).num_rl_steps
        if limit is not None and module.rl_step >= limit:
            trainer.should_stop = True

    def _validate(self, trainer: Trainer) -> None:
        """Run Lightning's validation loop as the training loop itself does between two batches."""
        if not trainer.enable_validation or not trainer.limit_val_batches:
            return
        connector = trainer._logger_connector
        first = connector._first_loop_iter
        trainer.fit_loop.epoch_loop.val_loop.restarting = False  # a resumed run's too starts at its first task
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.run()
        trainer.training = True
        connector._first_loop_iter = first


def _part(batch: TaskBatch, positions: Sequence[int]) -> TaskBatch:
    """The tasks at some positions of a batch, without trajectories."""
    pairs = [pair for pair in zip(batch.tasks, batch.positions, strict=True) if pair[1] in positions]
    return TaskBatch(batch.rl_step, [task for task, _ in pairs], [position for _, position in pairs])


def replaced(played: Sequence[Trajectory], fresh: Sequence[Trajectory]) -> list[Trajectory]:
    """The trajectories that were played, with whole groups exchanged for fresh ones, in the same order."""
    waiting: dict[int, list[Trajectory]] = {}
    for trajectory in fresh:
        waiting.setdefault(trajectory.group, []).append(trajectory)
    return [waiting[t.group].pop(0) if waiting.get(t.group) else t for t in played]


def make_env(source: TaskSource, task: Task) -> Env:
    """The task's environment, or a `BrokenEnv` when it cannot be made: a bad rollout is data."""
    try:
        return source.env(task)
    except Exception as error:
        return BrokenEnv(error)


def _check_servers(engine: Engine, gap: float) -> None:
    """Tell that fresh weights on servers do not give the trainer's log-probabilities; `gap` in nats a token."""
    if isinstance(engine, ServerEngine) and gap > MAX_SERVER_GAP and not engine.numbers()["staleness"]:
        engine.say(
            "gap",
            f"servers report other log-probabilities than training computes: expected a mean gap of at most "
            f"{MAX_SERVER_GAP} nats, got {gap:.2g}; serve the base and precision of model.policy, and report them at "
            "the sampling temperature (vLLM: --logprobs-mode processed_logprobs), or set model.mismatch.correction",
        )


def _is_val_step(trainer: Trainer) -> bool:
    """Whether Lightning validates after the batch that was trained last."""
    interval = trainer.val_check_batch
    return isinstance(interval, int) and trainer.fit_loop.epoch_loop.total_batch_idx % interval == interval - 1


def trajectory_seed(seed: int, rl_step: int, position: int, sample: int) -> int:
    """63-bit seed of one trajectory."""
    digest = hashlib.blake2b(f"{seed}/{rl_step}/{position}/{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _datamodule(trainer: Any) -> TaskDataModule:
    if not isinstance(trainer.datamodule, TaskDataModule):
        raise ValueError(
            f"rollouts need a TaskDataModule, got {type(trainer.datamodule).__name__}; give trainer.fit one"
        )
    return trainer.datamodule
