"""Plays the tasks of a batch right before the step that learns from them, and ends the run by rl_steps.

Put it first among the callbacks: the others read the trajectories that it leaves on the batch. Sampling sees no global
random state: each trajectory has a seed made of the run's seed, the rl_step, the task's position and its own number, so
it is the same whatever the number of ranks.

With `model.engine.one_step_off` the episodes of the next rl_step are played while this one is updated, in another
thread and with a copy of the weights from before the update::

    here      play 1 | update 1 | update 2 | update 3 |    update 1 makes weights 1, update 2 weights 2
    in parallel        play 2   | play 3   | play 4   |    play 2 has weights 0, play 3 weights 1: one step off

With `model.rollout.workers.max_staleness` the workers play ahead without a pause, see `look_ahead`.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, Trainer

from lightning_mem1.callbacks.background import BackgroundJob
from lightning_mem1.callbacks.collector import Collector, RolloutResult, Watch, datamodule
from lightning_mem1.callbacks.look_ahead import LookAhead
from lightning_mem1.data.task_data import TaskBatch, TaskDataModule
from lightning_mem1.engine.remote.engine import RemoteEngine
from lightning_mem1.engine.vllm import VllmEngine
from lightning_mem1.policy.sharding import gather, release
from lightning_mem1.rollout.reply_room import warn_of_cut_replies
from lightning_mem1.rollout.workers.factory import make_workers, num_threads
from lightning_mem1.rollout.workers.job import Plan
from lightning_mem1.rollout.workers.job_queue import JobQueue
from lightning_mem1.rollout.workers.pool import WorkerPool
from lightning_mem1.training.lightning_internals import run_validation
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.types import Engine

MAX_SERVER_GAP = 0.05  # nats; bfloat16 kernels stay well below, another temperature or base does not


class RolloutCallback(Callback):
    """Fills `batch.trajectories`: `group_size` sampled episodes per task in training, one greedy episode in validation.

    Logs, by rl_step: ``rollout/seconds`` (wall clock of this rank), ``rollout/wait_seconds`` (what of it nothing else
    was done in: all, but for one step off), ``rollout/staleness`` (rl_steps that the weights which played lag behind
    those that learn, on servers as well), ``rollout/num_episodes`` (of this rank), ``rollout/tokens_per_s`` (generated
    tokens of this rank per second), ``rollout/resampled_groups`` (of this rank: groups without a signal that were
    played again, see `model.rollout.resample_rounds`; their first episodes are dropped and do not count elsewhere);
    with servers also, of this rank since the start, ``rollout/server_retries`` (tries after the first),
    ``rollout/server_nonsense`` (replies that were not to the point), ``rollout/server_failed_turns`` (given up: their
    episodes ended with an error), and ``rollout/server_staleness`` (rl_steps that served weights lag behind); with
    workers, of all ranks, ``rollout/worker_restarts`` (workers that died and were replaced, since the start) and
    ``rollout/waiting_share`` (0-1, of the workers' time in which they had no job), and of this rank's episodes
    ``rollout/staleness`` as the mean over tokens, ``rollout/staleness_max`` (of any turn) and ``rollout/mixed_share``
    (0-1, of episodes that several versions of the weights wrote). Where workers play ahead, ``rollout/seconds`` and
    ``rollout/waiting_share`` count from one rl_step to the next.

    With ``model.rollout.workers`` one queue serves all ranks: the first rank deals the tasks of every rank out to its
    workers, whoever is free takes the next ones, and each rank gets the trajectories of its own tasks. Validation is
    played by the workers where there is one rank, else by each rank itself.

    Args:
        validate_first: Validate before the first rl_step, so that a curve starts at the untrained policy.
        validate_last: Validate after the last rl_step, if that was not just done.

    Attributes:
        watch: Called after each turn with how far the episodes are; one step off from another thread too.
    """

    def __init__(self, validate_first: bool = True, validate_last: bool = True) -> None:
        self.validate_first, self.validate_last = validate_first, validate_last
        self._ahead: BackgroundJob[RolloutResult] = BackgroundJob()
        self._behind: dict[str, Any] | None = None  # the weights that play the rl_step after this one, one step off
        self._staleness = 0.0
        self._validated_at = -1  # rl_step of the last validation that ran to its end
        self._val_batches: list[TaskBatch] = []
        self.watch: Watch | None = None
        self._workers: WorkerPool | JobQueue | None = None
        self._look_ahead: LookAhead | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Validate the policy as it came, and a resumed one if it was stopped before its validation was done.

        Before that, say when replies do not fit.
        """
        self._stop_when_done(trainer, pl_module)
        self._look_ahead = _look_ahead(trainer, pl_module)
        if trainer.is_global_zero:
            warn_of_cut_replies(getattr(trainer.datamodule, "source", None), pl_module.encoder)  # type: ignore[attr-defined]
        if pl_module.rl_step == 0:
            due = self.validate_first
        else:  # nothing is due at the end of the run: `on_train_end` sees to it
            due = not trainer.should_stop and self._validated_at != pl_module.rl_step and _is_val_step(trainer)
        if due:
            self._validate(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Let go of what was begun for a step that will not come, and validate the policy as it goes."""
        self._ahead.stop()
        if isinstance(self._workers, JobQueue):
            self._workers.forget()
        if self.validate_last and self._validated_at != pl_module.rl_step:
            self._validate(trainer)
        self._close()

    def on_train_batch_start(self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int) -> None:  # type: ignore[override]
        """Play the training tasks, or take what was played during the last update and let the next ones begin."""
        asked = time.perf_counter()
        collected = self._collected(trainer, pl_module, batch)
        assert collected.rl_step == batch.rl_step
        batch.trajectories = collected.trajectories
        numbers = {**collected.numbers(), "rollout/wait_seconds": time.perf_counter() - asked}
        self._staleness = numbers["rollout/staleness"]
        pl_module.log_dict(numbers, on_step=True, on_epoch=False, batch_size=1)
        if pl_module.sampling_policy.apart and self._plays(trainer, pl_module):
            self._begin(self._collector(trainer, pl_module, self._ahead.check), batch.rl_step + 1)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Mem1Module, outputs: Any, batch: TaskBatch, batch_idx: int
    ) -> None:
        """End the run by rl_steps, whatever Lightning counts; hand the new weights to workers that play ahead.

        Says when servers report another policy's numbers.
        """
        self._stop_when_done(trainer, pl_module)
        if self._look_ahead and not trainer.should_stop:
            self._look_ahead.begin(self._collector(trainer, pl_module), pl_module.rl_step + 1)
        if not self._staleness and not pl_module.rollout_settings.workers.on:
            _check_servers(pl_module.engine, float(trainer.callback_metrics.get("train/rollout_gap_mean", 0.0)))

    def on_validation_start(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Get ready to play with the newest weights; ranks may have different numbers of batches."""
        self._ahead.wait()
        pl_module.sampling_policy.push()
        _prepare(pl_module)

    def on_validation_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Play validation tasks greedily."""
        batch.rl_step = pl_module.rl_step
        self._val_batches.append(batch)
        greedy = dataclasses.replace(pl_module.rollout_settings, temperature=0.0, top_p=1.0)
        collector = self._collector(trainer, pl_module, alone=trainer.world_size > 1)
        batch.trajectories = collector.play(batch, 1, greedy)

    def on_validation_end(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Let go of what was played: the batches live as long as the run."""
        _done(pl_module)
        self._validated_at = pl_module.rl_step
        for batch in self._val_batches:
            batch.trajectories = []
        self._val_batches = []

    def on_exception(self, trainer: Trainer, pl_module: Mem1Module, exception: BaseException) -> None:  # type: ignore[override]
        """Leave no thread and no worker behind."""
        self._ahead.stop()
        self._close()

    def state_dict(self) -> dict[str, Any]:
        """Where the last validation was; one step off, the weights that play the next rl_step."""
        return {"validated_at": self._validated_at, "behind": self._behind}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where the last validation was. Episodes that were played ahead are not kept: the same come again."""
        self._validated_at = state_dict["validated_at"]
        self._behind = state_dict.get("behind")

    def _collector(
        self, trainer: Trainer, module: Mem1Module, check: Callable[[], None] = lambda: None, alone: bool = False
    ) -> Collector:
        """What plays: this process, or the workers; `alone` for this process in any case."""
        data, settings = datamodule(trainer), module.rollout_settings.workers
        if settings.on and not alone and self._workers is None:
            self._workers = make_workers(_plan(module, data), settings)
        return Collector(module, data, check, self.watch, None if alone else self._workers)

    def _plays(self, trainer: Trainer, module: Mem1Module) -> bool:
        """Whether this rank plays: with workers the first one does so for all."""
        return not module.rollout_settings.workers.on or trainer.is_global_zero

    def _collected(self, trainer: Trainer, module: Mem1Module, batch: TaskBatch) -> RolloutResult:
        """What was played for a batch of this rank."""
        collected, data = self._ahead.take(), datamodule(trainer)
        shared = module.rollout_settings.workers.on and trainer.world_size > 1
        if collected is None and self._plays(trainer, module):
            whole = data.train_batch(batch.rl_step, whole=True) if shared else batch
            assert whole is not None
            collector = self._collector(trainer, module)
            if self._look_ahead and self._look_ahead.begun < batch.rl_step:  # nothing was begun after an update
                self._look_ahead.begin(collector, batch.rl_step)
            collected = self._collect(collector, whole)
        if shared:
            collected = trainer.strategy.broadcast(collected)
        assert collected is not None
        return collected.of(batch.positions) if shared else collected

    def _close(self) -> None:
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def _collect(self, collection: Collector, batch: TaskBatch) -> RolloutResult:
        """Play here and now; a resumed run with the weights that the uninterrupted one played with."""
        sampling = collection.sampling_policy
        sampling.push()
        if self._behind is not None and self._behind["rl_step"] == batch.rl_step - 2:
            sampling.load(self._behind)
        _prepare(collection.module)
        collected = collection.collect(batch)
        _done(collection.module)
        return collected

    def _begin(self, collection: Collector, rl_step: int) -> None:
        """Play the tasks of the next rl_step with the weights as they are now, in the background."""
        collection.sampling_policy.push()
        self._behind = collection.sampling_policy.state()
        _prepare(collection.module)
        batch, engine = collection.data.train_batch(rl_step, collection.workers is not None), collection.engine
        if batch is not None:
            interrupt = engine.interrupt if isinstance(engine, RemoteEngine) else lambda: None
            self._ahead.start(lambda: collection.collect(batch), interrupt)

    def _stop_when_done(self, trainer: Trainer, module: Mem1Module) -> None:
        limit = datamodule(trainer).num_rl_steps
        if limit is not None and module.rl_step >= limit:
            trainer.should_stop = True

    def _validate(self, trainer: Trainer) -> None:
        """Play the validation tasks now, unless there are none."""
        if trainer.enable_validation and trainer.limit_val_batches:
            run_validation(trainer)


def _look_ahead(trainer: Trainer, module: Mem1Module) -> LookAhead | None:
    """For the rank that plays, where workers play ahead; says what that means for a resumed run."""
    max_staleness = module.rollout_settings.workers.max_staleness
    if not max_staleness or not trainer.is_global_zero:
        return None
    if module.rl_step:
        print(
            f"workers play ahead (model.rollout.workers.max_staleness {max_staleness}): every task is learnt from once "
            "as in a run that was not interrupted, but which weights play a turn depends on the machine, so the "
            "digits differ",
            file=sys.stderr,
        )
    return LookAhead(max_staleness)


def _prepare(module: Mem1Module) -> None:
    """Have the weights where turns are generated; every rank has to call it, and only then may they play apart."""
    if module.generates:
        gather(module.policy)
    elif module.lora is None and isinstance(module.engine, RemoteEngine | VllmEngine):
        module.engine.publish()


def _done(module: Mem1Module) -> None:
    """Make room again for an update."""
    release(module.policy)
    if isinstance(module.engine, VllmEngine):
        module.engine.sleep()


def _plan(module: Mem1Module, data: TaskDataModule) -> Plan:
    """What a worker needs to play what this process would."""
    workers = module.rollout_settings.workers
    return Plan(
        make_source=data.source_maker(),
        policy=module.policy.source,
        lora=module.lora,
        compute=vars(module.compute),
        engine=module.engine_settings,
        memory=module.memory.settings,
        device=workers.device or module.policy.device.type,
        num_threads=num_threads(workers),
    )


def _check_servers(engine: Engine, gap: float) -> None:
    """Report that fresh weights on servers do not give the trainer's log-probabilities; `gap` in nats a token."""
    if isinstance(engine, RemoteEngine) and gap > MAX_SERVER_GAP:
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
