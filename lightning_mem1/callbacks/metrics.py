"""The measures of `evaluation.measures`, averaged over the episodes of an rl_step and of a validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

from lightning.pytorch import Callback, Trainer
from torchmetrics import Metric

from lightning_mem1.callbacks.process_memory import process_memory
from lightning_mem1.data.task_data import TaskBatch, TaskDataModule
from lightning_mem1.evaluation.measures import Numbers, answers, cost, group_deviations, outcome
from lightning_mem1.evaluation.metrics import (
    AnswerScores,
    ContextByTurn,
    InternalStateTokens,
    PeakTokens,
    TrajectoryMean,
)
from lightning_mem1.evaluation.view import View
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.types import StopReason, Trajectory

# Keys whose value is a plain mean, by what they are about; `COST` goes to ``memory/`` in training.
STOPS = tuple(f"stop_{reason}" for reason in StopReason)
OUTCOME: tuple[str, ...] = ("reward", "reward_squared", "success", "group_std", "invalid_action_rate", "turns")
OUTCOME += ("seconds_per_episode", *STOPS)
ANSWERS = ("answered", "searches", "exact_format")
COST: tuple[str, ...] = (
    "peak_tokens_without_prompt_mean",
    "dependency",
    "internal_state_copy_rate",
    "repeated_actions",
)
COST += ("recall_rate",)


class MetricsCallback(Callback):
    """Logs by rl_step what training and validation episodes did and cost, failed ones included, over all ranks.

    Under ``rollout/`` in training and ``val/`` in validation: ``reward`` and ``reward_std`` (reward units, over
    trajectories), ``success`` (0-1), ``group_std`` (training only: mean deviation within a group),
    ``invalid_action_rate`` (0-1, of turns), ``turns`` (per trajectory), ``seconds_per_episode``, ``stop_done``,
    ``stop_max_turns``, ``stop_context``, ``stop_error`` (0-1, share of trajectories), and in validation
    ``baseline_<name>`` (mean reward of the source's own baselines on the same tasks).

    There too, where tags name the actions (QA): ``em``, ``f1`` (mean over tasks of the sum over objectives, the paper's
    numbers), ``em_mean``, ``f1_mean`` (mean over objectives, 0-1), ``answered`` (0-1, share of trajectories that gave
    an answer; one without counts as wrong), ``searches`` (per trajectory), ``exact_format`` (0-1, of turns that act).

    Under ``memory/`` in training and ``val/`` in validation: ``peak_tokens_mean``, ``peak_tokens_max`` (tokens in the
    window when a turn ends, prompt included) and ``peak_tokens_without_prompt_mean`` (as the paper's tables count);
    ``dependency`` (pairs of tokens, area under causal attention); ``internal_state_mean``, ``internal_state_max``
    (tokens), ``internal_state_growth`` (tokens per turn) and ``internal_state_copy_rate`` (0-1: share of a state's runs
    of 3 tokens that the state before had too, so 1 is a memory that stays as it is; left out when no state was long
    enough); ``context_tokens_turn_<k>`` (mean context of turn k, or of the memory written after it where that is
    longer); ``repeated_actions`` (per trajectory: actions repeated after their result had left the context) and
    ``recall_rate`` (0-1, of turns that act: those that fetched turns back). Where the memory is staged, the contexts
    that it is written in count like the others.

    And in training, of this process: ``memory/engine_kv_mib``, ``memory/process_gib``, ``memory/gpu_peak_gib``, see
    `process_memory`.
    """

    def __init__(self) -> None:
        # all of them from the start: a rank that played nothing takes part in every reduction all the same
        self.means = {key: TrajectoryMean() for key in (*OUTCOME, *ANSWERS, *COST)}
        self.scores, self.peak = AnswerScores(), PeakTokens()
        self.internal_state, self.by_turn = InternalStateTokens(), ContextByTurn()

    def setup(self, trainer: Trainer, pl_module: Mem1Module, stage: str) -> None:  # type: ignore[override]
        """Put the metrics on the module's device."""
        for metric in self._metrics:
            metric.to(trainer.strategy.root_device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int) -> None:  # type: ignore[override]
        """Log how the training episodes went."""
        self._add(batch.trajectories, pl_module)
        pl_module.log_dict(self._flush("rollout", "memory", pl_module), on_step=True, on_epoch=False, batch_size=1)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Mem1Module, outputs: Any, batch: TaskBatch, batch_idx: int
    ) -> None:
        """Log what this process holds, the update of this rl_step included."""
        numbers = {f"memory/{name}": number for name, number in process_memory(pl_module).items()}
        pl_module.log_dict(numbers, on_step=True, on_epoch=False, batch_size=1)

    def on_validation_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Add the validation episodes of a batch."""
        self._add(batch.trajectories, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Log how the validation episodes went, and the baselines on the same tasks."""
        metrics = self._flush("val", "val", pl_module)
        metrics.pop("val/group_std", None)  # greedy episodes are alone in their groups
        if isinstance(trainer.datamodule, TaskDataModule):  # type: ignore[attr-defined]
            scores = trainer.datamodule.baselines()  # type: ignore[attr-defined]
            metrics |= {f"val/baseline_{name}": score for name, score in scores.items()}
        pl_module.log_dict(metrics, on_step=False, on_epoch=True, batch_size=1)

    @property
    def _metrics(self) -> tuple[Metric, ...]:
        return (*self.means.values(), self.scores, self.peak, self.internal_state, self.by_turn)

    def _add(self, trajectories: Sequence[Trajectory], module: Mem1Module) -> None:
        """Add what was played; each sum goes over a batch in its order, then into float32."""
        view = View(module.encoder.decode, module.rollout_settings.tags, module.contexts)
        self._add_means(outcome_numbers(trajectories))
        if view.tags.actions:
            answered = [answers(t, view) for t in trajectories]
            self.scores.update(*(_joined(answered, name) for name in ("em", "f1", "objectives")))
            self._add_means({name: _joined(answered, name) for name in ANSWERS})
        costs = [cost(t, view) for t in trajectories]
        self._add_means({name: _joined(costs, name.removesuffix("_mean")) for name in COST})
        self.peak.update(_joined(costs, "peak_tokens"))
        self.internal_state.update([numbers["internal_state_tokens"] for numbers in costs])
        self.by_turn.update([numbers["context_tokens"] for numbers in costs])

    def _add_means(self, numbers: Numbers) -> None:
        for name, values in numbers.items():
            self.means[name].update(values)

    def _flush(self, outcome_prefix: str, cost_prefix: str, module: Mem1Module) -> dict[str, float]:
        """The means since the last flush, over all ranks."""
        outcomes = self._means(OUTCOME)
        variance = outcomes.pop("reward_squared") - outcomes["reward"] ** 2
        outcomes["reward_std"] = max(variance, 0.0) ** 0.5
        if module.rollout_settings.tags.actions:
            outcomes |= {name: float(value) for name, value in self.scores.compute().items()} | self._means(ANSWERS)
        costs = self._costs()
        for metric in self._metrics:
            metric.reset()
        return {
            **{f"{outcome_prefix}/{name}": value for name, value in outcomes.items()},
            **{f"{cost_prefix}/{name}": value for name, value in costs.items()},
        }

    def _means(self, names: Sequence[str]) -> dict[str, float]:
        return {name: float(self.means[name].compute()) for name in names}

    def _costs(self) -> dict[str, float]:
        found = self._means(COST)
        if not math.isfinite(found["internal_state_copy_rate"]):
            del found["internal_state_copy_rate"]
        return {
            **found,
            **{f"peak_tokens_{name}": float(value) for name, value in self.peak.compute().items()},
            **{f"internal_state_{name}": float(value) for name, value in self.internal_state.compute().items()},
            **{f"context_tokens_turn_{turn}": value for turn, value in self.by_turn.compute().items()},
        }


def outcome_numbers(trajectories: Sequence[Trajectory]) -> Numbers:
    """What is averaged under the keys of `OUTCOME`, in the order of the trajectories."""
    found = [outcome(trajectory) for trajectory in trajectories]
    rewards = _joined(found, "reward")
    return {
        "reward": rewards,
        "reward_squared": [reward**2 for reward in rewards],
        "group_std": group_deviations(trajectories),
        "invalid_action_rate": [1.0 - valid for valid in _joined(found, "valid")],
        "seconds_per_episode": _joined(found, "seconds"),
        **{name: _joined(found, name) for name in ("success", "turns", *STOPS)},
    }


def _joined(parts: Sequence[Numbers], name: str) -> list[float]:
    """The numbers of one measure over all parts, in order."""
    return list(chain.from_iterable(part[name] for part in parts))
