"""The Lightning module: trajectories in, one reinforcement-learning update out.

It never samples. `RolloutCallback` has put trajectories on the batch before `training_step` sees it. Optimisation is
manual, and `rl_step` (collect-and-update iterations done) is the clock: `global_step` counts optimizer steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_mem1.checks import resolve_seed
from lightning_mem1.context.memory import drift
from lightning_mem1.engine.factory import AnyEngine, make_engine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.critic import CRITIC, Critic, CriticSettings, trained_parameters
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.policy.sampling_copy import SamplingPolicy
from lightning_mem1.policy.sharding import gather, is_sharded, release, shard
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training import gradients
from lightning_mem1.training.checkpoint_state import (
    base_fingerprint,
    check_checkpoint,
    check_scale,
    plain,
    set_rng_state,
    snapshot,
)
from lightning_mem1.training.credit.advantages import Scale
from lightning_mem1.training.credit.algorithms import ALGORITHMS, CreditSettings
from lightning_mem1.training.credit.assignment import CreditAssigner
from lightning_mem1.training.credit.filters import bad_input, bad_values, check_room, num_action_tokens, token_counts
from lightning_mem1.training.credit.importance import MismatchSettings, corrected, correction_numbers
from lightning_mem1.training.credit.shaping import ShapingSettings
from lightning_mem1.training.credit.token_credit import TokenCredit
from lightning_mem1.training.layouts import collate
from lightning_mem1.training.layouts.microbatches import Microbatches, minibatches
from lightning_mem1.training.losses import KLEstimator, Unit
from lightning_mem1.training.optimizers import make_optimizer
from lightning_mem1.training.policy_loss import PolicyLoss
from lightning_mem1.training.self_check import self_check
from lightning_mem1.training.settings import check_settings
from lightning_mem1.training.update_stats import (
    UpdateStats,
    critic_means,
    mean_over_steps,
    mismatch,
    rollout_gap,
    value_numbers,
)
from lightning_mem1.types import StopReason, Trajectory

WEIGHTS_PREFIX = "policy."  # name of the policy inside this module, as Lightning writes it into checkpoints


class PlayedBatch(Protocol):
    """What `training_step` takes: the number of the rl_step (from 1) and its trajectories."""

    rl_step: int
    trajectories: list[Trajectory]


class Mem1Module(LightningModule):
    """Trains a policy on its own trajectories with a clipped policy gradient.

    Logs, by rl_step: ``train/loss``; ``train/clip_fraction`` (0-1); ``train/approx_kl``, ``train/entropy`` and
    ``train/kl_reference`` (nats per action token, the last one when `beta` > 0); ``train/grad_norm`` (before clipping);
    ``train/rollout_gap_mean`` and ``train/rollout_gap_max`` (nats: |log p in training - log p in the rollout|, before
    the first update of the rl_step, of what trains, or of one trajectory when no group has a signal) and
    ``train/rollout_gap_turn_<k>`` (its mean over the tokens of turn k, from 0, those that write a memory counted too),
    ``train/rollout_gap_p99`` (99th percentile, at most 12% too large), ``train/rollout_gap_<kind>`` (by kind of token:
    ``state`` or ``action``, which is the rest of a turn) and ``train/ratio_outside_clip`` (0-1, tokens whose ratio to
    the rollout leaves the clip range before the first update); with `mismatch.correction` also
    ``train/is_ratio_mean`` (mean of old / rollout
    before the cap, 1 for an exact engine) and ``train/is_truncated`` or ``train/is_masked`` (0-1, tokens held back);
    ``train/entropy_<kind>`` (nats per token) and ``train/gradient_share_state`` (0-1: of the policy loss's derivatives
    by the log-probabilities, in absolute value, the share on internal-state tokens; it says where the loss pulls, not
    how far the weights follow);
    with a critic, ``train/value_loss`` (in squared units of reward, halved), ``train/value_mean`` and
    ``train/value_explained_variance`` (of the returns, at most 1; both before the update),
    ``train/critic_grad_norm`` (before clipping) and ``train/bad_values`` (count, see `screening`);
    ``train/drift`` (turns whose context is not what was sampled from, stays 0); ``train/skipped_updates`` (non-finite
    gradients), ``train/zero_signal_groups``, ``train/bad_rewards``, ``train/empty_trajectories``,
    ``train/lone_groups`` and ``train/overlong_turns`` (counts, see `screening`), ``train/lr``; raft also
    ``train/kept_trajectories`` (count: what is imitated), and its loss is in nats per action token of these.

    Args:
        policy: "bundled", a folder with safetensors (a model, or an adapter that names its base), or a hub id. On the
            command line "bundled" becomes "bundled_marketplace" where the pages are those of official files.
        memory: Memory mode: mem1, full, window, none, summary or amem, see `memory`.
        window: Turns kept by memory mode "window", notes retrieved by "amem".
        layout: How trajectories are scored: tree or rows (equal numbers), stitched (the paper's single copy) or
            official (that of its public code); the last two do not score what was sampled, see `layouts`.
        algorithm: grpo, dr_grpo, rloo, reinforce_pp, dapo, gspo, gigpo, ppo or raft, see `algorithms`.
        lr: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        warmup_steps: rl_steps over which the learning rate rises linearly.
        max_grad_norm: Gradients are clipped to this norm, the policy's and the critic's each; None for no clipping.
        lora: The trained adapter; null trains every weight.
        num_epochs: Microbatches over the trajectories of an rl_step.
        num_minibatches: Optimizer steps per pass.
        max_tokens_per_microbatch: Most tokens in one forward pass; gradients add up over passes.
        epsilon: Clip range of the probability ratio, below 1; null for the algorithm's own (0.2, gspo 3e-4).
        epsilon_high: Clip range above 1; null for the algorithm's own (dapo 0.28, gspo 4e-4), else for `epsilon`.
        beta: Weight of the KL penalty against the base policy (adapters off); 0 leaves the reference pass out.
        kl_in: Where the penalty acts: in the loss, or taken off the reward token by token.
        kl_estimator: k1, k2 or k3, see `losses.kl_penalty`; null for k3 in the loss and k1 in the reward.
        entropy_coef: Weight of the entropy bonus.
        loss_unit: What counts the same in the loss: every token, turn or trajectory (gspo: always trajectory).
        state_loss_weight: Weight of the policy loss on internal-state tokens, in units of that on the other ones.
        scale_rewards: "std" divides advantages by the group's deviation, "none" does not (arXiv 2503.20783).
        credit: How credit flows back in time.
        critic: The critic of ppo; the other algorithms have none.
        shaping: What the length of a turn and of an internal state costs.
        mismatch: What is done about an engine whose log-probabilities are not the trainer's.
        resample_rounds: How often groups without a signal are played again within an rl_step (dapo).
        dtype: float32, bfloat16 or float16.
        quantization: none, or nf4 for a base in 4 bits (QLoRA; needs bitsandbytes).
        optimizer: adamw, or one of bitsandbytes: adamw_8bit, paged_adamw, paged_adamw_8bit.
        attention: Kernel of the tree layout: auto, segments, flex or varlen, see `policy.attention`.
        kernels: Of norms and MLPs: torch, or liger (Triton, for a GPU; needs liger-kernel).
        gradient_checkpointing: Trade time for memory in the backward pass.
        engine: Where turns are generated: in this process or by servers.
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
        epsilon: float | None = None,
        epsilon_high: float | None = None,
        beta: float = 0.0,
        kl_in: Literal["loss", "reward"] = "loss",
        kl_estimator: KLEstimator | None = None,
        entropy_coef: float = 0.0,
        loss_unit: Unit = "token",
        state_loss_weight: float = 1.0,
        scale_rewards: Scale = "std",
        credit: CreditSettings = CreditSettings(),  # noqa: B008
        critic: CriticSettings = CriticSettings(),  # noqa: B008
        shaping: ShapingSettings = ShapingSettings(),  # noqa: B008
        mismatch: MismatchSettings = MismatchSettings(),  # noqa: B008
        resample_rounds: int = 0,
        dtype: str = "float32",
        quantization: str = "none",
        optimizer: str = "adamw",
        attention: str = "auto",
        kernels: str = "torch",
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
        self.settings = {key: plain(value) for key, value in settings.items()}
        self.memory, self.window, self.algorithm = memory, window, algorithm
        self.lr, self.weight_decay, self.warmup_steps = lr, weight_decay, warmup_steps
        self.max_grad_norm, self.optimizer = max_grad_norm, optimizer
        self.num_epochs, self.num_minibatches = num_epochs, num_minibatches
        self.resample_rounds, self.mismatch = resample_rounds, mismatch
        self.engine_settings, self.rollout_settings = engine, rollout
        self.seed = resolve_seed(seed)
        self.rl_step = 0
        with torch.random.fork_rng(devices=[]):  # the adapter's start depends on the seed, not on what ran before
            torch.manual_seed(self.seed)
            self.policy = Policy.load(
                policy,
                lora=lora,
                dtype=dtype,
                attention=attention,
                gradient_checkpointing=gradient_checkpointing,
                quantization=quantization,
                kernels=kernels,
            )
            chosen = ALGORITHMS[algorithm]
            self.critic = Critic(self.policy, critic, gradient_checkpointing) if chosen.critic else None
        low, high = chosen.clip_range(epsilon, epsilon_high)
        self.objective = PolicyLoss(
            temperature=rollout.temperature,
            epsilon=low,
            epsilon_high=high,
            unit=chosen.loss_unit or loss_unit,
            beta=beta if kl_in == "loss" else 0.0,
            kl_estimator=kl_estimator or "k3",
            entropy_coef=entropy_coef,
            sequence_ratio=chosen.sequence_ratio,
            state_loss_weight=state_loss_weight,
            likelihood=chosen.likelihood,
        )
        self.crediting = CreditAssigner(
            algorithm=chosen,
            settings=credit,
            scale=scale_rewards,
            shaping=shaping,
            max_new_tokens=rollout.max_new_tokens,
            decode=lambda ids: str(self.policy.tokenizer.decode(ids, skip_special_tokens=False)),
            tag=rollout.tags.internal_state,
            total=lambda sums: self._reduce(sums, "sum"),
            beta=beta if kl_in == "reward" else 0.0,
            kl_estimator=kl_estimator or "k1",
        )
        cuts = (max_tokens_per_microbatch, layout, memory, window, self.crediting.state_end)
        self.passes = Microbatches(*cuts, self._num_idle)
        self._engine: AnyEngine | None = None
        self._behaviour: SamplingPolicy | None = None

    @property
    def behaviour(self) -> SamplingPolicy:
        """What samples: the policy itself, or one step off a copy of it; on the policy's device."""
        if self._behaviour is None or self._behaviour.device != self.policy.device:
            self._behaviour = SamplingPolicy(self.policy, lambda: self.rl_step, self.engine_settings.one_step_off)
            self._engine = None
        return self._behaviour

    @property
    def engine(self) -> AnyEngine:
        """The rollout engine of training; a local one is on the policy's device, its pool made once."""
        behaviour = self.behaviour
        if self._engine is None:
            self._engine = make_engine(behaviour.policy, self.engine_settings, lambda: behaviour.version, training=True)
        return self._engine

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over what trains; the policy and the critic are groups of one optimizer, so that it steps once."""
        groups = [{"params": parameters} for parameters in trained_parameters(self.policy).values()]
        return make_optimizer(self.optimizer, groups, self.lr, self.weight_decay)

    def configure_model(self) -> None:
        """Share the frozen base out among ranks, where the strategy has made a mesh for that."""
        if self.device_mesh is not None and not is_sharded(self.policy):
            base_fingerprint(self.policy)  # while it is whole
            self.policy.architecture  # noqa: B018  (likewise: it is found out by running the model)
            shard(self.policy, self.device_mesh["data_parallel"])

    def on_fit_start(self) -> None:
        """Refuse what would not see what the rollout saw: a precision of updates alone, a model not scored as it is."""
        if self.trainer.precision != "32-true":
            raise ValueError(
                "trainer.precision is not for rollouts, which would stay in the base's dtype: expected 32-true, got "
                f"{self.trainer.precision}; leave it out and set model.dtype, such as bfloat16"
            )
        if self.engine_settings.self_check:
            gather(self.policy)
            self_check(self.policy, self.engine_settings, self.passes.layout)
            release(self.policy)

    def training_step(self, batch: PlayedBatch, batch_idx: int) -> None:
        """One rl_step's update from the trajectories on the batch."""
        if not batch.trajectories:
            raise ValueError(
                f"rl_step {batch.rl_step} has no trajectories: expected RolloutCallback to have put them on the batch; "
                "add lightning_mem1.callbacks.RolloutCallback to trainer.callbacks"
            )
        outgrown = sum(t.stop_reason == StopReason.CONTEXT for t in batch.trajectories)
        fitting = self._sum_over_ranks(len(batch.trajectories) - outgrown)
        check_room(fitting, outgrown, batch.rl_step, self.engine_settings.max_context_tokens)
        metrics = self.update(batch.trajectories, batch.rl_step)
        self.rl_step = batch.rl_step
        self.log_dict({**metrics, "step": float(self.rl_step)}, on_step=True, on_epoch=False, batch_size=1)

    def validation_step(self, batch: PlayedBatch, batch_idx: int) -> None:
        """Nothing to compute: callbacks played the tasks and hold the metrics."""

    def update(self, trajectories: Sequence[Trajectory], rl_step: int) -> dict[str, float]:
        """Take all optimizer steps of one rl_step; returns the numbers to log."""
        scores = self._score(trajectories)
        columns = self.crediting.columns(trajectories, scores)
        columns, ratios = corrected(columns, trajectories, scores, self.mismatch)
        heard = [bool(c.advantages.any()) for c in columns]
        loud = {t.group for t, signal in zip(trajectories, heard, strict=True) if signal}
        imitates, drops = self.objective.likelihood, self.crediting.algorithm.drops_silent
        learnt = [i for i, t in enumerate(trajectories) if heard[i] or not (imitates or drops and t.group not in loud)]
        groups = [trajectories[i].group for i in learnt]
        self._set_lr(rl_step)
        alone = self.critic is not None and rl_step <= self.critic.settings.warmup_steps
        steps = [
            self._optimize([trajectories[learnt[i]] for i in part], [columns[learnt[i]] for i in part], alone)
            for epoch in range(self.num_epochs)
            for part in minibatches(groups, self.num_minibatches, f"{self.seed}/{rl_step}/{epoch}")
        ]
        scored = [step for step in steps if step["tokens"]]  # the others changed nothing, so the first is still exact
        first = scored[0] if scored else self._measure(trajectories)
        counts = {
            **({"kept_trajectories": len(learnt)} if imitates else {}),
            **bad_input(trajectories, self.rollout_settings.max_new_tokens),
            "zero_signal_groups": len({t.group for t in trajectories} - loud),
            "drift": sum(drift(t, self.memory, self.window) for t in trajectories),
            **({"bad_values": bad_values(scores["values"])} if self.critic else {}),
        }
        return {
            **mean_over_steps(scored),
            **critic_means(steps),
            **(self._value_numbers(columns) if self.critic else {}),
            **rollout_gap(first),
            **mismatch(first),
            **correction_numbers(ratios, self.mismatch, lambda sums: self._reduce(sums, "sum")),
            "train/skipped_updates": sum(step["skipped"] for step in steps),
            **{f"train/{name}": self._sum_over_ranks(count) for name, count in counts.items()},
            **({"train/kl_reference": self._mean_kl(trajectories, scores)} if "reference" in scores else {}),
            "train/lr": self._lr(rl_step),
        }

    def advantages(self, trajectories: Sequence[Trajectory]) -> Tensor:
        """Advantage of each action token (N,), trajectory by trajectory, turn by turn; float32 on the CPU.

        An episode that its environment broke is not the policy's doing: it gets 0 and is not compared with.
        """
        columns = self.crediting.columns(trajectories, self._score(trajectories))
        return TokenCredit.cat(columns).advantages

    def _score(self, trajectories: Sequence[Trajectory]) -> dict[str, list[Tensor]]:
        """What has to be known before credit is given: (T,) by trajectory, by name. No pass when nothing has."""
        scorers: dict[str, Callable[[collate.Batch], Tensor]] = {}
        if self.crediting.beta:
            scorers["reference"] = lambda batch: self.objective.reference(self.policy, batch)
        if self.critic:
            scorers["values"] = self.critic.values
        if self.mismatch.on:
            scorers["old"] = lambda batch: self.policy.logprobs(batch, self.objective.temperature)[0]
        return self.passes.scores(trajectories, scorers, self.policy.device)

    def _optimize(
        self, trajectories: Sequence[Trajectory], columns: Sequence[TokenCredit], critic_alone: bool
    ) -> dict[str, float]:
        """One optimizer step over a minibatch; every rank takes the same collective calls, whatever it holds."""
        optimizer = self.optimizers()
        optimizer.zero_grad()  # type: ignore[union-attr]
        stats = self._add_gradients(trajectories, columns, critic_alone)
        # what has nothing to learn from keeps no gradient: a step would only replay the optimizer's momentum
        heard = {"policy": stats["tokens"], CRITIC: stats.get("value_tokens")}
        norms = {
            name: gradients.clip(parameters, self.max_grad_norm, self.trainer)
            for name, parameters in trained_parameters(self.policy).items()
            if heard[name]
        }
        finite = all(map(math.isfinite, (stats["loss"], stats.get("value_loss", 0.0), *norms.values())))
        if norms and finite:
            optimizer.step()  # type: ignore[union-attr]
        optimizer.zero_grad()  # type: ignore[union-attr]
        stats |= {"grad_norm": norms.get("policy", 0.0), "critic_grad_norm": norms.get(CRITIC, 0.0)}
        return {**stats, "skipped": 0.0 if finite else 1.0}

    def _add_gradients(
        self, trajectories: Sequence[Trajectory], columns: Sequence[TokenCredit], critic_alone: bool
    ) -> dict[str, float]:
        """The policy's from what has an advantage, the critic's from all that credit was given to; sums by name."""
        totals = self._totals(trajectories)
        scored = [
            i
            for i, t in enumerate(trajectories)
            if not critic_alone and num_action_tokens(t) and (self._scores_all or columns[i].advantages.any())
        ]
        known = self._known(trajectories, columns, scored)
        found = gradients.policy_gradients(self.objective, self.policy, known, totals, self._backward)
        stats = found.reduced(self._reduce).named()
        if self.critic:
            known = self._known(trajectories, columns, [i for i, c in enumerate(columns) if c.credited.any()])
            sums = gradients.critic_gradients(self.objective, self.critic, known, totals, self._backward)
            stats |= dict(zip(("value_loss", "value_tokens"), self._reduce(sums, "sum").tolist(), strict=True))
        return stats

    def _known(
        self, trajectories: Sequence[Trajectory], columns: Sequence[TokenCredit], chosen: Sequence[int]
    ) -> Iterator[tuple[collate.Batch, TokenCredit | None]]:
        """The passes over the chosen trajectories, with what is known of their tokens."""
        for here, batch in self.passes.batches(trajectories, chosen, self.policy.device):
            yield batch, TokenCredit.cat([columns[i] for i in here]) if here else None

    def _backward(self, loss: Tensor) -> None:
        with gradients.no_sync(self.trainer):
            self.manual_backward(loss)

    @torch.no_grad()
    def _measure(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        """Score one trajectory of each rank without learning from it: an rl_step without a signal has a gap too."""
        chosen = [i for i, t in enumerate(trajectories) if num_action_tokens(t)][:1]
        found = UpdateStats.empty()
        for here, batch in self.passes.batches(trajectories, chosen, self.policy.device):
            nothing, counts = TokenCredit.unknown(len(batch.action_ids)), token_counts([trajectories[i] for i in here])
            stats = self.objective.loss(self.policy, batch, nothing, counts)[1]
            found = stats if here else found
        return found.reduced(self._reduce).named()

    def _mean_kl(self, trajectories: Sequence[Trajectory], scores: dict[str, list[Tensor]]) -> float:
        """Mean divergence from the reference per action token, in nats, before the update."""
        sums = self.crediting.divergence(trajectories, scores)
        total, count = self._reduce(sums, "sum").tolist()
        return total / max(count, 1.0)

    def _value_numbers(self, columns: Sequence[TokenCredit]) -> dict[str, float]:
        known = TokenCredit.cat(columns)
        chosen = known.credited
        return value_numbers(known.values[chosen], known.returns[chosen], lambda sums: self._reduce(sums, "sum"))

    @property
    def _scores_all(self) -> bool:
        """True when trajectories without an advantage matter too (through the KL penalty or the entropy bonus)."""
        return bool(self.objective.beta or self.objective.entropy_coef)

    def _totals(self, trajectories: Sequence[Trajectory]) -> dict[str, int]:
        """Counts of the whole minibatch over all ranks, unscored trajectories included: they are zeros of the mean."""
        counts = token_counts(trajectories)
        summed = self._reduce(torch.tensor(list(counts.values()), dtype=torch.float64), "sum").tolist()
        return dict(zip(counts, map(int, summed), strict=True))

    def _reduce(self, tensor: Tensor, operation: str) -> Tensor:
        if self.trainer.world_size > 1:
            tensor = self.trainer.strategy.reduce(tensor.to(self.policy.device), reduce_op=operation).to(tensor)
        return tensor

    def _num_idle(self, num_passes: int) -> int:
        """Ranks that share the base out take the same number of passes."""
        if not is_sharded(self.policy):
            return 0
        return int(self._reduce(torch.tensor(float(num_passes)), "max")) - num_passes

    def _sum_over_ranks(self, number: float) -> float:
        return float(self._reduce(torch.tensor(float(number)), "sum"))

    def _lr(self, rl_step: int) -> float:
        return self.lr * min(1.0, rl_step / self.warmup_steps) if self.warmup_steps else self.lr

    def _set_lr(self, rl_step: int) -> None:
        rates = [self._lr(rl_step), *([self.critic.settings.lr] if self.critic else [])]
        for group, lr in zip(self.optimizers().optimizer.param_groups, rates, strict=True):  # type: ignore[union-attr]
            group["lr"] = lr

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what trains, the clock and the random state; the frozen base is named, not stored."""
        checkpoint["state_dict"] = {WEIGHTS_PREFIX + k: v for k, v in self.policy.adapter_state().items()}
        checkpoint["lightning_mem1"] = snapshot(self.policy, self.settings, self.rl_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint belongs to this base and adapter, then take its weights, clock and random state.

        Raises:
            ValueError: it does not.
        """
        ours = check_checkpoint(checkpoint, self.policy, self.settings["policy"])
        check_scale(ours, self.settings)
        state = checkpoint["state_dict"]
        self.policy.load_adapter_state({k.removeprefix(WEIGHTS_PREFIX): v for k, v in state.items()})
        self.rl_step = int(ours["rl_step"])
        set_rng_state(ours["rng"], self.global_rank)
