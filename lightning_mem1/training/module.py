"""The Lightning module: trajectories in, one update of RL out.

It never samples. `RolloutCallback` has put trajectories on the batch before `training_step` sees it. Optimisation is
manual, and `rl_step` (collect-and-update iterations done) is the clock: `global_step` counts optimizer steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from lightning_mem1.checks import RATE, SEED, Range, Ranges, check_numbers, resolve_seed
from lightning_mem1.context.contexts import Contexts, drift
from lightning_mem1.context.settings import MemorySetting, memory_mode
from lightning_mem1.engine.factory import AnyEngine, make_engine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.critic import Critic
from lightning_mem1.policy.policy import Policy
from lightning_mem1.policy.sampling_copy import SamplingPolicy
from lightning_mem1.policy.settings import CriticSettings, LoraSettings
from lightning_mem1.policy.sharding import gather, is_sharded, release, shard
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.broken_weights import check_weights
from lightning_mem1.training.checkpoint_state import base_fingerprint
from lightning_mem1.training.checkpointed_module import CheckpointedModule
from lightning_mem1.training.choices import Unit
from lightning_mem1.training.credit.algorithms import Algorithm, find_algorithm
from lightning_mem1.training.credit.assignment import CreditAssigner, check_group_size
from lightning_mem1.training.credit.filters import (
    bad_input,
    bad_values,
    check_room,
    counted_in_loss,
    groups_with_signal,
)
from lightning_mem1.training.credit.importance import corrected, correction_numbers
from lightning_mem1.training.credit.settings import CreditSettings, MismatchSettings
from lightning_mem1.training.credit.shaping import ShapingSettings
from lightning_mem1.training.credit.token_credit import TokenCredit
from lightning_mem1.training.layouts import collate
from lightning_mem1.training.layouts.microbatches import Microbatches, minibatches
from lightning_mem1.training.learner import Learner
from lightning_mem1.training.lightning_internals import send_own_values_only
from lightning_mem1.training.optimizers import make_optimizer
from lightning_mem1.training.plain_settings import plain
from lightning_mem1.training.policy_loss import PolicyLoss
from lightning_mem1.training.ranks import Ranks
from lightning_mem1.training.schedules import learning_rate
from lightning_mem1.training.self_check import self_check
from lightning_mem1.training.settings import (
    ComputeSettings,
    LossSettings,
    OptimSettings,
    check_parts,
    check_settings,
    grouped,
)
from lightning_mem1.training.update_stats import step_numbers, value_numbers
from lightning_mem1.types import StopReason, Trajectory


class PlayedBatch(Protocol):
    """What `training_step` takes: the number of the rl_step (from 1) and its trajectories."""

    rl_step: int
    trajectories: list[Trajectory]


class Mem1Module(CheckpointedModule):
    """Trains a policy on its own trajectories with a clipped policy gradient.

    What it logs by rl_step, with units, is at the top of `update_stats`.

    Args:
        policy: "bundled", a folder with safetensors (a model, or an adapter that names its base), or a hub id. On the
            command line "bundled" becomes "bundled_marketplace" where the pages are those of official files.
        memory: Memory mode: mem1, full, window, none, summary, amem, compaction, masked, fold, multiscale, edit,
            recall or recorded, or the dotted name of your own; with settings of its own {mode: window, window: 3}, see
            `context.modes`.
        layout: How trajectories are scored: tree or rows (equal numbers), stitched (the paper's single copy) or
            official (that of its public code); the last two do not score what was sampled.
        algorithm: grpo, resum_grpo, dr_grpo, rloo, reinforce_pp, dapo, gspo, gigpo, ppo or raft, see `algorithms`; or
            the dotted name of your own, such as my_file.my_algorithm.
        lr: Learning rate of AdamW.
        lora: The trained adapter; null trains every weight.
        optim: The optimizer, and how many steps it takes.
        loss: The loss of the policy.
        loss_unit: What counts the same in the loss: every token, turn or trajectory (dr_grpo and dapo: always token,
            gspo: always trajectory; grpo's paper: trajectory).
        max_tokens_per_microbatch: Most tokens in one forward pass; gradients add up over passes.
        credit: How rewards become advantages.
        critic: The critic of ppo; the other algorithms have none.
        shaping: What the length of a turn and of an internal state costs.
        mismatch: What is done about an engine whose log-probabilities are not the trainer's.
        compute: Precision and kernels.
        engine: Where turns are generated: in this process or by servers.
        rollout: How episodes are sampled.
        seed: Of the adapter's start and of the order of minibatches; null takes `seed_everything`'s.

    A group may be given as its dataclass or as a dict; what a dict leaves out keeps its default.

    Raises:
        ValueError, FileNotFoundError: one line on what was expected, what came and which key to set.
        TypeError: an argument that there is not, with its present name where it has moved.
    """

    ranges: ClassVar[Ranges] = {"lr": RATE, "max_tokens_per_microbatch": Range(1), "seed": SEED}

    def __init__(
        self,
        policy: str = "bundled",
        memory: MemorySetting = "mem1",
        layout: str = "tree",
        algorithm: str = "grpo",
        lr: float = 1e-3,
        lora: LoraSettings | None = LoraSettings(),  # noqa: B008
        optim: OptimSettings = OptimSettings(),  # noqa: B008
        loss: LossSettings = LossSettings(),  # noqa: B008
        loss_unit: Unit = "token",
        max_tokens_per_microbatch: int = 16384,
        credit: CreditSettings = CreditSettings(),  # noqa: B008
        critic: CriticSettings = CriticSettings(),  # noqa: B008
        shaping: ShapingSettings = ShapingSettings(),  # noqa: B008
        mismatch: MismatchSettings = MismatchSettings(),  # noqa: B008
        compute: ComputeSettings = ComputeSettings(),  # noqa: B008
        engine: EngineSettings = EngineSettings(),  # noqa: B008
        rollout: RolloutSettings = RolloutSettings(),  # noqa: B008
        seed: int | None = None,
    ) -> None:
        super().__init__()
        settings = grouped({key: value for key, value in locals().items() if key not in ("self", "__class__")})
        settings["memory"] = memory_mode(memory)
        chosen = find_algorithm(algorithm)
        check_numbers("model", Mem1Module, settings)
        check_settings(settings, chosen.critic)
        kept = {key: plain(value) for key, value in settings.items()} | {"memory": settings["memory"].settings}
        self.save_hyperparameters(kept, logger=False)
        self.automatic_optimization = False
        self.memory, self.algorithm, self.lr = settings["memory"], algorithm, lr
        self.contexts = Contexts(self.memory)  # of the trajectories at hand: derived once, for passes and callbacks
        self.optim: OptimSettings = settings["optim"]
        self.mismatch: MismatchSettings = settings["mismatch"]
        self.lora: LoraSettings | None = settings["lora"]
        self.compute: ComputeSettings = settings["compute"]
        self.engine_settings: EngineSettings = settings["engine"]
        self.rollout_settings: RolloutSettings = settings["rollout"]
        self.seed = resolve_seed(seed)
        self.rl_step = 0
        self.policy, self.critic = self._load(policy, settings, chosen)
        self.encoder = self.rollout_settings.encoder(self.policy.tokenizer)
        self.ranks = Ranks(lambda: self.trainer, lambda: self.policy.device)
        self.policy_loss = PolicyLoss.of(settings["loss"], chosen, loss_unit, self.rollout_settings.temperature)
        self.credit_assigner = self._credit_assigner(settings, chosen)
        cuts = (max_tokens_per_microbatch, layout, self.contexts, self.credit_assigner.state_end)
        self.microbatches = Microbatches(*cuts, self._num_idle)
        trained = (self.policy, self.critic, self.policy_loss, self.microbatches, self.optim.max_grad_norm)
        self.learner = Learner(*trained, self.ranks, self.manual_backward)
        self._engine: AnyEngine | None = None
        self._sampling_policy: SamplingPolicy | None = None

    def _load(self, source: str, settings: Mapping[str, Any], algorithm: Algorithm) -> tuple[Policy, Critic | None]:
        compute = settings["compute"]
        with torch.random.fork_rng(devices=[]):  # the adapter's start depends on the seed, not on what ran before
            torch.manual_seed(self.seed)
            policy = Policy.load(source, lora=settings["lora"], **vars(compute))
            if not algorithm.critic:
                return policy, None
            return policy, Critic(policy, settings["critic"], compute.gradient_checkpointing)

    def _credit_assigner(self, settings: Mapping[str, Any], algorithm: Algorithm) -> CreditAssigner:
        loss: LossSettings = settings["loss"]
        return CreditAssigner(
            algorithm=algorithm,
            settings=settings["credit"],
            shaping=settings["shaping"],
            max_new_tokens=self.rollout_settings.max_new_tokens,
            decode=self.encoder.decode,
            tag=self.rollout_settings.tags.internal_state,
            total=self.ranks.total,
            kl_coef=loss.kl_coef if loss.kl_in == "reward" else 0.0,
            kl_estimator=loss.kl_estimator or "k1",
            contexts=self.contexts,
        )

    def watch(self, on_pass: Callable[[int, int], None] | None) -> None:
        """Report each forward pass: its number, from 1, and how many there are; None for no reports."""
        self.microbatches = dataclasses.replace(self.microbatches, on_pass=on_pass)
        self.learner = dataclasses.replace(self.learner, microbatches=self.microbatches)

    @property
    def sampling_policy(self) -> SamplingPolicy:
        """What samples: the policy itself, or one step off a copy of it; on the policy's device."""
        if self._sampling_policy is None or self._sampling_policy.device != self.policy.device:
            self._sampling_policy = SamplingPolicy(self.policy, lambda: self.rl_step, self.engine_settings.one_step_off)
            self._engine = None
        return self._sampling_policy

    @property
    def generates(self) -> bool:
        """Whether turns are generated with the weights of this process, and not by servers or vLLM's own copy."""
        return self.engine_settings.kind in ("local", "transformers")

    @property
    def engine(self) -> AnyEngine:
        """The rollout engine of training; a local one is on the policy's device, its pool made once."""
        sampling = self.sampling_policy
        if self._engine is None:
            self._engine = make_engine(sampling.policy, self.engine_settings, lambda: sampling.version, training=True)
        return self._engine

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over what trains; the policy and the critic are groups of one optimizer, so that it steps once."""
        groups: list[dict[str, Any]] = [{"params": list(self.policy.trained().values())}]
        groups += [self.critic.optimizer_group()] if self.critic else []
        return make_optimizer(self.optim.name, groups, self.lr, self.optim.weight_decay)

    def configure_model(self) -> None:
        """Share weights out among ranks, where the strategy has made a mesh for that: the frozen base, or all of them.

        Raises:
            ValueError: something that needs whole weights.
        """
        if self.device_mesh is not None and not is_sharded(self.policy):
            if self.lora is None:
                check_parts(self.optim, self.rollout_settings.workers)
            base_fingerprint(self.policy)  # while it is whole
            self.policy.architecture  # noqa: B018  (likewise: it is found out by running the model)
            shard(self.policy, self.device_mesh["data_parallel"])

    def on_fit_start(self) -> None:
        """Refuse a precision of updates alone, groups with nothing to compare, and a model not scored as it is."""
        if self.trainer.precision != "32-true":
            raise ValueError(
                "trainer.precision is not for rollouts, which would stay in the base's dtype: expected 32-true, got "
                f"{self.trainer.precision}; leave it out and set model.compute.dtype, such as bfloat16"
            )
        group_size = getattr(self.trainer.datamodule, "group_size", None)  # type: ignore[attr-defined]
        check_group_size(group_size, self.algorithm, self.credit_assigner)
        self._lr(1)  # a schedule without an end is refused before anything is played
        send_own_values_only(self.trainer)
        if self.engine_settings.self_check:
            gather(self.policy)
            self_check(self.policy, self.engine_settings, self.microbatches.layout)
            release(self.policy)

    def training_step(self, batch: PlayedBatch, batch_idx: int) -> None:
        """One rl_step's update: trajectories -> contexts -> scores -> credit -> minibatches -> passes -> optimizer."""
        if not batch.trajectories:
            raise ValueError(
                f"rl_step {batch.rl_step} has no trajectories: expected RolloutCallback to have put them on the batch; "
                "add lightning_mem1.callbacks.RolloutCallback to trainer.callbacks"
            )
        outgrown = sum(t.stop_reason == StopReason.CONTEXT for t in batch.trajectories)
        fitting = self.ranks.sum(len(batch.trajectories) - outgrown)
        check_room(fitting, outgrown, batch.rl_step, self.engine_settings.max_context_tokens)
        metrics = self.update(batch.trajectories, batch.rl_step)
        check_weights(self.trained(), batch.rl_step)
        self.rl_step = batch.rl_step
        self.log_dict({**metrics, "step": float(self.rl_step)}, on_step=True, on_epoch=False, batch_size=1)

    def validation_step(self, batch: PlayedBatch, batch_idx: int) -> None:
        """Nothing to compute: callbacks played the tasks and hold the metrics."""

    def on_validation_epoch_end(self) -> None:
        """Name the rl_step that the validation's metrics belong to, as `training_step` does."""
        self.log("step", float(self.rl_step), on_step=False, on_epoch=True, batch_size=1)

    def update(self, trajectories: Sequence[Trajectory], rl_step: int) -> dict[str, float]:
        """Take all optimizer steps of one rl_step: score, give credit, correct, learn; returns the numbers to log."""
        scores = self._score(trajectories)
        credit = self.credit_assigner.assign(trajectories, scores)
        credit, ratios = corrected(credit, trajectories, scores, self.mismatch)
        signal = [each.has_signal for each in credit]
        counted = counted_in_loss(trajectories, signal, self.policy_loss.likelihood, self.policy_loss.drop_silent)
        counted = [i for i in counted if not self.credit_assigner.masks(trajectories[i])]
        steps = self._learn([trajectories[i] for i in counted], [credit[i] for i in counted], rl_step)
        return {
            **step_numbers(steps, lambda: self.learner.measure(trajectories)),
            **(self._value_numbers(credit) if self.critic else {}),
            **correction_numbers(ratios, self.mismatch, self.ranks.total),
            **self._counts(trajectories, signal, len(counted), scores),
            **self.credit_assigner.divergence_numbers(trajectories, scores),
            "train/lr": self._lr(rl_step),
        }

    def _score(self, trajectories: Sequence[Trajectory]) -> dict[str, list[Tensor]]:
        """What has to be known before credit is given: (T,) by trajectory, by name. No pass when nothing has."""
        scorers: dict[str, Callable[[collate.Batch], Tensor]] = {}
        if self.credit_assigner.kl_coef:
            scorers["reference"] = lambda batch: self.policy_loss.reference(self.policy, batch)
        if self.critic:
            scorers["values"] = self.critic.values
        if self.mismatch.on:
            scorers["old"] = lambda batch: self.policy.logprobs(batch, self.policy_loss.temperature)[0]
        return self.microbatches.scores(trajectories, scorers, self.policy.device)

    def _learn(
        self, trajectories: Sequence[Trajectory], credit: Sequence[TokenCredit], rl_step: int
    ) -> list[dict[str, float]]:
        """The sums of each optimizer step, see `Learner.step`."""
        optimizer: Any = self.optimizers()
        rates = [self._lr(rl_step), *([self.critic.settings.lr] if self.critic else [])]
        for group, lr in zip(optimizer.optimizer.param_groups, rates, strict=True):
            group["lr"] = lr
        critic_alone = self.critic is not None and rl_step <= self.critic.settings.warmup_steps
        groups = [t.group for t in trajectories]
        return [
            self.learner.step(optimizer, [trajectories[i] for i in part], [credit[i] for i in part], critic_alone)
            for epoch in range(self.optim.num_epochs)
            for part in minibatches(groups, self.optim.num_minibatches, f"{self.seed}/{rl_step}/{epoch}")
        ]

    def _lr(self, rl_step: int) -> float:
        """The policy's learning rate; the critic has its own, which is constant."""
        end = getattr(getattr(self.trainer, "datamodule", None), "num_rl_steps", None)
        optim = self.optim
        return learning_rate(self.lr, rl_step, optim.schedule, optim.warmup_steps, end, optim.schedule_args)

    def _value_numbers(self, credit: Sequence[TokenCredit]) -> dict[str, float]:
        known = TokenCredit.cat(credit)
        return value_numbers(known.values[known.credited], known.returns[known.credited], self.ranks.total)

    def _counts(
        self,
        trajectories: Sequence[Trajectory],
        signal: Sequence[bool],
        num_counted: int,
        scores: Mapping[str, Sequence[Tensor]],
    ) -> dict[str, float]:
        """Counts over all ranks."""
        counts = {
            **({"kept_trajectories": num_counted} if self.policy_loss.likelihood else {}),
            **bad_input(trajectories, self.rollout_settings.max_new_tokens),
            "zero_signal_groups": len({t.group for t in trajectories} - groups_with_signal(trajectories, signal)),
            "drift": sum(drift(t, self.contexts) for t in trajectories),
            **({"bad_values": bad_values(scores["values"])} if self.critic else {}),
        }
        return {f"train/{name}": self.ranks.sum(count) for name, count in counts.items()}

    def _num_idle(self, num_passes: int) -> int:
        """Ranks that share the base out take the same number of passes."""
        return int(self.ranks.most(num_passes)) - num_passes if is_sharded(self.policy) else 0
