"""The Lightning module: trajectories in, one reinforcement-learning update out.

It never samples. `RolloutCallback` has put trajectories on the batch before `training_step` sees it. Optimisation is
manual, and `rl_step` (collect-and-update iterations done) is the clock: `global_step` counts optimizer steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_mem1 import collator
from lightning_mem1.advantages import Scale, group_relative
from lightning_mem1.engine.local import EngineSettings, LocalEngine
from lightning_mem1.losses import Unit, clipped_policy_loss, entropy_loss, kl_penalty, token_weights
from lightning_mem1.memory import drift
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.rollout import RolloutSettings
from lightning_mem1.settings import check_settings
from lightning_mem1.snapshot import base_fingerprint, resolve_seed, rng_state, set_rng_state
from lightning_mem1.types import StopReason, Trajectory
from lightning_mem1.update_stats import PassStats, mean_over_steps, rollout_gap

ALGORITHMS: dict[str, Callable[[Tensor, Tensor, Scale], Tensor]] = {"grpo": group_relative}
WEIGHTS_PREFIX = "policy."  # name of the policy inside this module, as Lightning writes it into checkpoints


class PlayedBatch(Protocol):
    """What `training_step` takes: the number of the rl_step (from 1) and its trajectories."""

    rl_step: int
    trajectories: list[Trajectory]


class Mem1Module(LightningModule):
    """Trains a policy on its own trajectories with a clipped, group-relative policy gradient.

    Logs, by rl_step: ``train/loss``; ``train/clip_fraction`` (0-1); ``train/approx_kl``, ``train/entropy`` and
    ``train/kl_reference`` (nats per action token, the last one when `beta` > 0); ``train/grad_norm`` (before clipping);
    ``train/rollout_gap_mean`` and ``train/rollout_gap_max`` (nats: |log p in training - log p in the rollout|, before
    the first update of the rl_step, of what trains, or of one trajectory when no group has a signal) and
    ``train/rollout_gap_turn_<k>`` (its mean over the tokens of turn k, from 0);
    ``train/drift`` (turns whose context is not what was sampled from, stays 0); ``train/skipped_updates`` (non-finite
    gradients), ``train/zero_signal_groups``, ``train/lr``.

    Args:
        policy: "bundled", a folder with safetensors, or a hub id.
        memory: Memory mode: mem1, full, window or none.
        window: Turns kept by memory mode "window".
        layout: How trajectories are scored: tree or rows (equal numbers).
        algorithm: grpo (arXiv 2402.03300).
        lr: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        warmup_steps: rl_steps over which the learning rate rises linearly.
        max_grad_norm: Gradients are clipped to this norm; None for no clipping.
        lora: The trained adapter; null trains every weight.
        num_epochs: Passes over the trajectories of an rl_step.
        num_minibatches: Optimizer steps per pass.
        max_tokens_per_microbatch: Most tokens in one forward pass; gradients add up over passes.
        epsilon: Clip range of the probability ratio, below 1.
        epsilon_high: Clip range above 1 (DAPO, arXiv 2503.14476); null for `epsilon`.
        beta: Weight of the KL penalty against the base policy (adapters off); 0 leaves the reference pass out.
        entropy_coef: Weight of the entropy bonus.
        loss_unit: What counts the same in the loss: every token, turn or trajectory.
        scale_rewards: "std" divides advantages by the group's deviation, "none" does not (arXiv 2503.20783).
        dtype: float32, bfloat16 or float16.
        attention: Kernel of the tree layout: auto, segments or flex.
        gradient_checkpointing: Trade time for memory in the backward pass.
        engine: The rollout engine.
        rollout: How episodes are sampled.
        seed: Of the adapter's start and of the order of minibatches; null takes `seed_everything`'s.

    Raises:
        ValueError, FileNotFoundError: one line on what was expected, what came and which key to set.
    """

    def __init__(
        self,
        policy: str = "bundled",
        memory: str = "mem1",
        window: int = 2,
        layout: str = "tree",
        algorithm: str = "grpo",
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        max_grad_norm: float | None = 1.0,
        lora: LoraSettings | None = LoraSettings(),  # noqa: B008
        num_epochs: int = 1,
        num_minibatches: int = 1,
        max_tokens_per_microbatch: int = 16384,
        epsilon: float = 0.2,
        epsilon_high: float | None = None,
        beta: float = 0.0,
        entropy_coef: float = 0.0,
        loss_unit: Unit = "token",
        scale_rewards: Scale = "std",
        dtype: str = "float32",
        attention: str = "auto",
        gradient_checkpointing: bool = False,
        engine: EngineSettings = EngineSettings(),  # noqa: B008
        rollout: RolloutSettings = RolloutSettings(),  # noqa: B008
        seed: int | None = None,
    ) -> None:
        super().__init__()
        settings = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        check_settings(settings, ALGORITHMS)
        self.automatic_optimization = False
        self.strict_loading = False  # checkpoints hold the adapter alone; `on_load_checkpoint` checks its names
        self.settings = {key: _plain(value) for key, value in settings.items()}
        self.memory, self.window, self.algorithm = memory, window, algorithm
        self.lr, self.weight_decay, self.warmup_steps = lr, weight_decay, warmup_steps
        self.max_grad_norm = max_grad_norm
        self.num_epochs, self.num_minibatches = num_epochs, num_minibatches
        self.max_tokens_per_microbatch, self._scoring = max_tokens_per_microbatch, (layout, memory, window)
        self.epsilon, self.epsilon_high, self.beta, self.entropy_coef = epsilon, epsilon_high, beta, entropy_coef
        self.loss_unit, self.scale_rewards = loss_unit, scale_rewards
        self.engine_settings, self.rollout_settings = engine, rollout
        self.seed = resolve_seed(seed)
        self.rl_step = 0
        with torch.random.fork_rng(devices=[]):  # the adapter's start depends on the seed, not on what ran before
            torch.manual_seed(self.seed)
            self.policy = Policy.load(
                policy, lora=lora, dtype=dtype, attention=attention, gradient_checkpointing=gradient_checkpointing
            )
        self._engine: LocalEngine | None = None
        self._engine_device: torch.device | None = None

    @property
    def engine(self) -> LocalEngine:
        """The rollout engine on the policy's device; its pool of keys and values is made once."""
        device = self.policy.device
        if self._engine is None or self._engine_device != device:
            self._engine, self._engine_device = LocalEngine(self.policy, self.engine_settings), device
        return self._engine

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over what trains."""
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=self.lr, weight_decay=self.weight_decay)

    def training_step(self, batch: PlayedBatch, batch_idx: int) -> None:
        """One rl_step's update from the trajectories on the batch."""
        if not batch.trajectories:
            raise ValueError(
                f"rl_step {batch.rl_step} has no trajectories: expected RolloutCallback to have put them on the batch; "
                "add lightning_mem1.callbacks.RolloutCallback to trainer.callbacks"
            )
        self._check_room(batch)
        metrics = self.update(batch.trajectories, batch.rl_step)
        self.rl_step = batch.rl_step
        self.log_dict({**metrics, "step": float(self.rl_step)}, on_step=True, on_epoch=False, batch_size=1)

    def validation_step(self, batch: PlayedBatch, batch_idx: int) -> None:
        """Nothing to compute: callbacks played the tasks and hold the metrics."""

    def update(self, trajectories: Sequence[Trajectory], rl_step: int) -> dict[str, float]:
        """Take all optimizer steps of one rl_step; returns the numbers to log."""
        advantages = self.advantages(trajectories)
        self._set_lr(rl_step)
        steps = [
            self._optimize([trajectories[i] for i in part], advantages[part])
            for epoch in range(self.num_epochs)
            for part in self._minibatches(trajectories, rl_step, epoch)
        ]
        scored = [step for step in steps if step["tokens"]]  # the others changed nothing, so the first is still exact
        return {
            **mean_over_steps(scored),
            **rollout_gap(scored[0] if scored else self._measure(trajectories)),
            "train/skipped_updates": sum(step["skipped"] for step in steps),
            "train/zero_signal_groups": self._sum_over_ranks(_num_silent_groups(trajectories, advantages)),
            "train/drift": self._sum_over_ranks(sum(drift(t, self.memory, self.window) for t in trajectories)),
            "train/lr": self._lr(rl_step),
        }

    def advantages(self, trajectories: Sequence[Trajectory]) -> Tensor:
        """Advantage of each trajectory (B,), float32 on the CPU.

        An episode that its environment broke is not the policy's doing: it gets 0 and is not compared with.
        """
        advantages = torch.zeros(len(trajectories))
        sound = [i for i, t in enumerate(trajectories) if t.stop_reason != StopReason.ERROR and t.turns]
        sizes = Counter(t.group for t in trajectories)
        left = Counter(trajectories[i].group for i in sound)
        # the last one left of a broken group has nobody to be compared with
        sound = [i for i in sound if left[trajectories[i].group] > 1 or sizes[trajectories[i].group] == 1]
        if sound:
            rewards = torch.tensor([float(trajectories[i].reward) for i in sound])
            groups = torch.tensor([trajectories[i].group for i in sound])
            advantages[sound] = ALGORITHMS[self.algorithm](rewards, groups, self.scale_rewards)
        return advantages

    def _minibatches(self, trajectories: Sequence[Trajectory], rl_step: int, epoch: int) -> list[list[int]]:
        """Indices of trajectories, split evenly; groups stay together as far as the split allows."""
        groups = sorted({t.group for t in trajectories})
        if self.num_minibatches > 1:
            random.Random(f"{self.seed}/{rl_step}/{epoch}").shuffle(groups)
        rank = {group: number for number, group in enumerate(groups)}
        order = sorted(range(len(trajectories)), key=lambda i: (rank[trajectories[i].group], i))
        size = math.ceil(len(order) / self.num_minibatches)
        return [order[start * size : (start + 1) * size] for start in range(self.num_minibatches)]

    def _optimize(self, trajectories: Sequence[Trajectory], advantages: Tensor) -> dict[str, float]:
        """One optimizer step over a minibatch; every rank takes the same collective calls, whatever it holds."""
        optimizer = self.optimizers()
        optimizer.zero_grad()  # type: ignore[union-attr]
        totals = self._totals(trajectories)
        scored = [i for i, t in enumerate(trajectories) if t.turns and (self._scores_all or advantages[i] != 0)]
        chosen = [trajectories[i] for i in scored]
        found = PassStats.empty()
        for part in collator.minibatches(chosen, self.max_tokens_per_microbatch, *self._scoring):
            loss, more = self._loss([chosen[i] for i in part], advantages[scored][part], totals)
            with self._no_sync():
                self.manual_backward(loss)
            found = found + more
        stats = found.reduced(self._reduce).named()
        if stats["tokens"] == 0:  # nothing to learn from: a step would only replay the optimizer's momentum
            return {"skipped": 0.0, "tokens": 0.0}
        grad_norm = self._clip_gradients()
        finite = math.isfinite(stats["loss"]) and math.isfinite(grad_norm)
        if finite:
            optimizer.step()  # type: ignore[union-attr]
        optimizer.zero_grad()  # type: ignore[union-attr]
        return {**stats, "grad_norm": grad_norm, "skipped": 0.0 if finite else 1.0}

    @torch.no_grad()
    def _measure(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        """Score one trajectory of each rank without learning from it: an rl_step without a signal has a gap too."""
        chosen = [t for t in trajectories if t.turns][:1]
        found = self._loss(chosen, torch.zeros(1), self._count(chosen))[1] if chosen else PassStats.empty()
        return found.reduced(self._reduce).named()

    def _loss(
        self, trajectories: Sequence[Trajectory], advantages: Tensor, totals: dict[str, int]
    ) -> tuple[Tensor, PassStats]:
        """Loss of a microbatch, with its statistics."""
        batch = collator.collate(trajectories, *self._scoring).to(self.policy.device)
        temperature = self.rollout_settings.temperature
        logprobs, entropy = self.policy.logprobs(batch, temperature)
        weights = token_weights(batch.trajectory_index, batch.turn_index, self.loss_unit, **totals)
        per_token = advantages.to(weights)[batch.trajectory_index]
        # the rollout's own log-probs are the old policy: exact, and no second pass over the batch
        loss, stats = clipped_policy_loss(
            logprobs, batch.rollout_logprobs, per_token, weights, self.epsilon, self.epsilon_high
        )
        kl = torch.zeros(())
        if self.beta:
            with self.policy.reference(), torch.no_grad():
                reference, _ = self.policy.logprobs(batch, temperature)
            kl = (weights * kl_penalty(logprobs, reference)).sum()
            loss = loss + self.beta * kl
        if self.entropy_coef:
            loss = loss + self.entropy_coef * entropy_loss(entropy, weights)
        gap = (logprobs - batch.rollout_logprobs).abs()
        parts = (loss, stats["clip_fraction"], stats["approx_kl"], -entropy_loss(entropy, weights), kl, weights.sum())
        return loss, PassStats.of(parts, gap, batch.turn_index)

    @property
    def _scores_all(self) -> bool:
        """True when trajectories without an advantage matter too (through the KL penalty or the entropy bonus)."""
        return bool(self.beta or self.entropy_coef)

    def _totals(self, trajectories: Sequence[Trajectory]) -> dict[str, int]:
        """Counts of the whole minibatch over all ranks, unscored trajectories included: they are zeros of the mean."""
        counts = self._count(trajectories)
        summed = self._reduce(torch.tensor(list(counts.values()), dtype=torch.float64), "sum").tolist()
        return dict(zip(counts, map(int, summed), strict=True))

    def _count(self, trajectories: Sequence[Trajectory]) -> dict[str, int]:
        turns = [turn for trajectory in trajectories for turn in trajectory.turns]
        num_tokens = sum(len(turn.action_ids) for turn in turns)
        return {"num_trajectories": len(trajectories), "num_turns": len(turns), "num_tokens": num_tokens}

    def _check_room(self, batch: PlayedBatch) -> None:
        """Raise when no trajectory of any rank had room for its contexts: nothing could ever be learnt."""
        outgrown = sum(t.stop_reason == StopReason.CONTEXT for t in batch.trajectories)
        if self._sum_over_ranks(len(batch.trajectories) - outgrown) == 0:
            raise ValueError(
                f"contexts do not fit the engine: expected room for an episode, got all {outgrown} trajectories of "
                f"rl_step {batch.rl_step} cut off at {self.engine_settings.max_context_tokens} tokens; "
                "raise model.engine.max_context_tokens"
            )

    def _clip_gradients(self) -> float:
        """Add gradients up over ranks, clip them, return their norm before clipping (nan or inf when they are bad)."""
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        if self.trainer.world_size > 1:
            for parameter in trained:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad = self.trainer.strategy.reduce(parameter.grad, reduce_op="sum")
        limit = math.inf if self.max_grad_norm is None else self.max_grad_norm
        return float(torch.nn.utils.clip_grad_norm_(trained, limit))

    def _no_sync(self) -> contextlib.AbstractContextManager[Any]:
        """Ranks may take different numbers of passes, so gradients meet once per optimizer step, not per backward."""
        block = getattr(self.trainer.strategy, "block_backward_sync", None)
        return block() if block else contextlib.nullcontext()

    def _reduce(self, tensor: Tensor, operation: str) -> Tensor:
        if self.trainer.world_size > 1:
            tensor = self.trainer.strategy.reduce(tensor.to(self.policy.device), reduce_op=operation).to(tensor)
        return tensor

    def _sum_over_ranks(self, number: float) -> float:
        return float(self._reduce(torch.tensor(float(number)), "sum"))

    def _lr(self, rl_step: int) -> float:
        return self.lr * min(1.0, rl_step / self.warmup_steps) if self.warmup_steps else self.lr

    def _set_lr(self, rl_step: int) -> None:
        for group in self.optimizers().optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] = self._lr(rl_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the adapter, the clock and the random state; the frozen base is named, not stored."""
        checkpoint["state_dict"] = {WEIGHTS_PREFIX + k: v for k, v in self.policy.adapter_state().items()}
        checkpoint["lightning_mem1"] = {
            "rl_step": self.rl_step,
            "policy": self.settings["policy"],
            "base": base_fingerprint(self.policy),
            "settings": self.settings,
            "rng": rng_state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint belongs to this base and adapter, then take its weights, clock and random state.

        Raises:
            ValueError: it does not.
        """
        ours = checkpoint.get("lightning_mem1")
        if not isinstance(ours, dict):
            raise ValueError(
                "not a checkpoint of lightning_mem1: expected an entry 'lightning_mem1', got only "
                f"{', '.join(sorted(checkpoint))}; set --ckpt_path to a file that this package wrote"
            )
        base = base_fingerprint(self.policy)
        if ours["base"] != base:
            raise ValueError(
                f"checkpoint belongs to another base policy: expected '{self.settings['policy']}' ({base}), got "
                f"'{ours['policy']}' ({ours['base']}); set model.policy to the policy it was trained from"
            )
        state = checkpoint["state_dict"]
        self.policy.load_adapter_state({k.removeprefix(WEIGHTS_PREFIX): v for k, v in state.items()})
        self.rl_step = int(ours["rl_step"])
        set_rng_state(ours["rng"])


def _num_silent_groups(trajectories: Sequence[Trajectory], advantages: Tensor) -> int:
    heard = {t.group for t, advantage in zip(trajectories, advantages.tolist(), strict=True) if advantage}
    return len({t.group for t in trajectories} - heard)


def _plain(value: Any) -> Any:
    """Dataclasses as dicts, so that a checkpoint loads with `weights_only`."""
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
