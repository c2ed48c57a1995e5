"""What the episodes cost in memory: tokens in the window, internal state, and the bytes behind them."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torchmetrics import Metric

from lightning_mem1.context.contexts import largest_by_act
from lightning_mem1.context.internal_state import copy_rates, state_lengths, state_span, state_spans
from lightning_mem1.data.task_data import TaskBatch
from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.evaluation.metrics import (
    Dependency,
    InternalStateTokens,
    PeakTokens,
    TrajectoryMean,
    dependency,
    peak_tokens,
)
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.types import Trajectory

MAX_TURNS_SHOWN = 32
GIB = 2**30


class ContextByTurn(Metric):
    """Mean context length by turn index, in tokens: a flat line is constant memory.

    Its value is a dict from turn index to mean, for the turns that happened, up to `MAX_TURNS_SHOWN`.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros(MAX_TURNS_SHOWN), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(MAX_TURNS_SHOWN), dist_reduce_fx="sum")

    def update(self, lengths: Sequence[Sequence[int]]) -> None:
        """Add trajectories, each as one context length per turn."""
        for turns in lengths:
            shown = torch.tensor([float(n) for n in turns[:MAX_TURNS_SHOWN]]).to(self.total)
            self.total[: len(shown)] += shown
            self.count[: len(shown)] += 1

    def compute(self) -> dict[int, float]:
        """Mean by turn index."""
        return {k: float(self.total[k] / self.count[k]) for k in range(MAX_TURNS_SHOWN) if self.count[k]}


class MemoryUsageCallback(Callback):
    """Logs by rl_step, under ``memory/`` in training and ``val/`` in validation:

    ``peak_tokens_mean``, ``peak_tokens_max`` (tokens in the window when a turn ends, prompt included) and
    ``peak_tokens_without_prompt_mean`` (as the paper's tables count); ``dependency`` (pairs of tokens, area under
    causal attention); ``internal_state_mean``, ``internal_state_max`` (tokens), ``internal_state_growth`` (tokens
    per turn) and ``internal_state_copy_rate`` (0-1: share of a state's runs of 3 tokens that stood in the state before,
    so 1 is a memory that stands still; left out when no state was long enough); ``context_tokens_turn_<k>`` (mean
    context of turn k, or of the memory written after it where that is longer); and in training ``engine_kv_mib`` (the
    local engine's pool), ``process_gib`` (resident memory), ``gpu_peak_gib`` (since the start, this rl_step's update
    included). In a staged memory mode the contexts that the memory is written in count like the others.
    """

    def __init__(self) -> None:
        self.peak, self.peak_without_prompt, self.dependency = PeakTokens(), TrajectoryMean(), Dependency()
        self.internal_state, self.by_turn = InternalStateTokens(), ContextByTurn()
        self.copied = TrajectoryMean()

    def setup(self, trainer: Trainer, pl_module: Mem1Module, stage: str) -> None:  # type: ignore[override]
        """Put the metrics on the module's device."""
        for metric in self._metrics:
            metric.to(trainer.strategy.root_device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int) -> None:  # type: ignore[override]
        """Log what the training episodes cost."""
        self._add(batch.trajectories, pl_module)
        pl_module.log_dict(self._flush("memory"), on_step=True, on_epoch=False, batch_size=1)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Mem1Module, outputs: Any, batch: TaskBatch, batch_idx: int
    ) -> None:
        """Log what this process holds, the update of this rl_step included."""
        pl_module.log_dict(_bytes(pl_module), on_step=True, on_epoch=False, batch_size=1)

    def on_validation_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Add the validation episodes of a batch."""
        self._add(batch.trajectories, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Log what the validation episodes cost."""
        pl_module.log_dict(self._flush("val"), on_step=False, on_epoch=True, batch_size=1)

    @property
    def _metrics(self) -> tuple[Metric, ...]:
        return self.peak, self.peak_without_prompt, self.dependency, self.internal_state, self.by_turn, self.copied

    def _add(self, trajectories: Sequence[Trajectory], module: Mem1Module) -> None:
        seen = [module.contexts.lengths(t) for t in trajectories]
        written = [[len(turn.action_ids) for turn in t.turns] for t in trajectories]
        self.peak.update([peak_tokens(c, a) for c, a in zip(seen, written, strict=True)])
        prompts = [len(t.prompt_ids) for t in trajectories]
        shorter = [peak_tokens(c, a, p) for c, a, p in zip(seen, written, prompts, strict=True)]
        self.peak_without_prompt.update([float(tokens) for tokens in shorter])
        self.dependency.update([dependency(c, a) for c, a in zip(seen, written, strict=True)])
        spans = [internal_state_spans(t, module) for t in trajectories]
        pairs = list(zip(trajectories, spans, strict=True))
        self.internal_state.update([state_lengths(*pair) for pair in pairs])
        self.copied.update([rate for pair in pairs for rate in copy_rates(*pair)])
        self.by_turn.update([largest_by_act(t, lengths) for t, lengths in zip(trajectories, seen, strict=True)])

    def _flush(self, prefix: str) -> dict[str, float]:
        peak, state, copied = self.peak.compute(), self.internal_state.compute(), float(self.copied.compute())
        metrics = {
            **{f"peak_tokens_{k}": float(v) for k, v in peak.items()},
            "peak_tokens_without_prompt_mean": float(self.peak_without_prompt.compute()),
            "dependency": float(self.dependency.compute()),
            **{f"internal_state_{k}": float(v) for k, v in state.items()},
            **({"internal_state_copy_rate": copied} if math.isfinite(copied) else {}),
            **{f"context_tokens_turn_{k}": v for k, v in self.by_turn.compute().items()},
        }
        for metric in self._metrics:
            metric.reset()
        return {f"{prefix}/{name}": value for name, value in metrics.items()}


def internal_state_spans(trajectory: Trajectory, module: Mem1Module) -> list[tuple[int, int]]:
    """Where the internal state stands in each turn's ids, as they were sampled."""
    return state_spans(trajectory, module.encoder.decode, module.rollout_settings.tags.internal_state)


def internal_state_lengths(trajectory: Trajectory, module: Mem1Module) -> list[int]:
    """Tokens of the internal state in each turn, as they were sampled."""
    return [end - start for start, end in internal_state_spans(trajectory, module)]


def state_tokens(ids: Sequence[int], decode: Callable[[Sequence[int]], str], tag: str) -> int:
    """Number of ids between the opening and the closing tag; a state that was cut off counts to the end of the turn.

    An id that holds the end of a tag together with something else counts as the tag's::

        <summary> red  shoes </summary> <answer> ...      2
        <summary> red  shoes  with  and  with             5
    """
    start, end = state_span(ids, decode, tag)
    return end - start


def _bytes(module: Mem1Module) -> dict[str, float]:
    metrics = {"memory/process_gib": _resident_gib()}
    if isinstance(module.engine, LocalEngine):
        metrics["memory/engine_kv_mib"] = module.engine.pool.num_bytes / 2**20
    if module.device.type == "cuda":
        metrics["memory/gpu_peak_gib"] = torch.cuda.max_memory_allocated(module.device) / GIB
    return metrics


def _resident_gib() -> float:
    """Resident memory of this process now (Linux), else its peak."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / GIB
    except OSError:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
