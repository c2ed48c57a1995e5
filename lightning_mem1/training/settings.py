"""The settings of training: groups of keys below `model`, and one line for each value that cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from lightning_mem1.checks import ANY_SIGN, Range, Ranges, check_choice
from lightning_mem1.context.prompts import PROMPT_STYLES
from lightning_mem1.engine.settings import EngineSettings, Transfer
from lightning_mem1.engine.vllm_version import check_installed
from lightning_mem1.policy.settings import CriticSettings, LoraSettings
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.rollout.workers.settings import WorkerSettings
from lightning_mem1.training.choices import KLEstimator, OptimizerName, ScheduleName, Unit
from lightning_mem1.training.credit.settings import CreditSettings, MismatchSettings
from lightning_mem1.training.credit.shaping import ShapingSettings
from lightning_mem1.training.layouts.spans import check_layout
from lightning_mem1.training.plain_settings import from_plain


@dataclass
class OptimSettings:
    """The optimizer, and the steps that it takes in an rl_step.

    Args:
        name: adamw, or one of bitsandbytes: adamw_8bit, paged_adamw, paged_adamw_8bit.
        weight_decay: Weight decay of AdamW.
        warmup_steps: rl_steps over which the learning rate rises linearly.
        schedule: What the learning rate does after that, by the names of transformers: constant, linear, cosine,
            cosine_with_min_lr, polynomial, inverse_sqrt or warmup_stable_decay; it ends with data.num_rl_steps.
        schedule_args: Further arguments of the schedule, such as {min_lr_rate: 0.1}.
        max_grad_norm: Gradients are clipped to this norm, the policy's and the critic's each; None for no clipping.
        num_epochs: Passes over the trajectories of an rl_step.
        num_minibatches: Optimizer steps per pass.
    """

    name: OptimizerName = "adamw"
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: ScheduleName = "constant"
    schedule_args: dict[str, Any] | None = None
    max_grad_norm: float | None = 1.0
    num_epochs: int = 1
    num_minibatches: int = 1
    ranges: ClassVar[Ranges] = {"num_epochs": Range(1, 10**4), "num_minibatches": Range(1, 10**6)}


@dataclass
class LossSettings:
    """The loss of the policy.

    Args:
        clip: Clip range of the probability ratio, below 1; null for the algorithm's own (0.2, gspo 3e-4).
        clip_high: Clip range above 1; null for the wider of the algorithm's own (dapo 0.28, gspo 4e-4) and `clip`.
        drop_silent: Whether groups without a signal stay out of the mean of the loss, which they dilute, where groups
            are compared; null for the algorithm's own (dapo true, the others false).
        kl_coef: Weight of the KL penalty against the base policy (adapters off); 0 leaves the reference pass out.
        kl_in: Where the penalty acts: in the loss, or taken off the reward token by token.
        kl_estimator: k1, k2 or k3, see `losses.kl_penalty`; null for k3 in the loss and k1 in the reward.
        entropy_coef: Weight of the entropy bonus.
        state_weight: Weight of the policy loss on tokens about memory (internal states, and turns that act on memory
            alone), in units of that on the other ones.
    """

    clip: float | None = None
    clip_high: float | None = None
    drop_silent: bool | None = None
    kl_coef: float = 0.0
    kl_in: Literal["loss", "reward"] = "loss"
    kl_estimator: KLEstimator | None = None
    entropy_coef: float = 0.0
    state_weight: float = 1.0
    ranges: ClassVar[Ranges] = {"entropy_coef": ANY_SIGN}


@dataclass
class ComputeSettings:
    """How the policy computes.

    Args:
        dtype: float32, bfloat16 or float16.
        quantization: none, or nf4 for a base in 4 bits (QLoRA; needs bitsandbytes).
        attention: Kernel of the tree layout: auto, segments, flex or varlen, see `policy.attention`.
        kernels: Of norms and MLPs: torch, or liger (Triton, for a GPU; needs liger-kernel).
        gradient_checkpointing: Trade time for memory in the backward pass.
        compile: Backend of torch.compile for the layers in passes that train or score, such as inductor, for small
            models on a GPU, which wait for kernels to be launched; empty for none. Not measured on a GPU. Not in 4
            bits, with kernels liger, recurrent layers or a base that is shared out among ranks.
        fused_lora: Whether LoRA layers add what their adapter makes in the call that makes it, three kernels in place
            of five; in 16 bits the sum is rounded once. Plain LoRA without dropout on whole weights; a critic's adapter
            likewise. 4% of a training pass on a CPU; not measured on a GPU.
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantization: Literal["none", "nf4"] = "none"
    attention: Literal["auto", "segments", "flex", "varlen"] = "auto"
    kernels: Literal["torch", "liger"] = "torch"
    gradient_checkpointing: bool = False
    compile: str = ""
    fused_lora: bool = False


GROUPS: Mapping[str, type[Any]] = {  # arguments of `Mem1Module` that are groups of settings
    "lora": LoraSettings,
    "optim": OptimSettings,
    "loss": LossSettings,
    "credit": CreditSettings,
    "critic": CriticSettings,
    "shaping": ShapingSettings,
    "mismatch": MismatchSettings,
    "compute": ComputeSettings,
    "engine": EngineSettings,
    "rollout": RolloutSettings,
}


def grouped(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Mem1Module` with every group as its dataclass, whether it came as one or as a dict.

    Raises:
        ValueError: a group has no such key, or a key no such choice.
    """
    found = dict(settings)
    for name, kind in GROUPS.items():
        if name != "lora" or found[name] is not None:  # full training has no adapter
            found[name] = from_plain(kind, found[name], f"model.{name}")
    return found


def check_settings(settings: Mapping[str, Any], critic: bool) -> None:
    """Check the arguments of `Mem1Module`.

    Args:
        settings: Every argument by name, groups as dataclasses.
        critic: Whether the algorithm has one.

    Raises:
        ValueError: one line on what was expected, what came and which key to set.
    """
    check_layout(settings["layout"], settings["memory"])
    check_choice("loss unit", settings["loss_unit"], get_args(Unit), "model.loss_unit")
    credit = settings["credit"]
    if settings["algorithm"] == "raft" and credit.keep is None and credit.threshold is None:
        raise ValueError(
            "raft would imitate whatever was played: expected a limit, got keep null and threshold null; "
            "set model.credit.keep or model.credit.threshold"
        )
    if credit.unit == "turn" and credit.rewrites != "cross":
        raise ValueError(
            f"GAE over turns crosses rewrites: expected credit.rewrites cross, got {credit.rewrites}; set "
            "model.credit.unit token"
        )
    if credit.bootstrap and not critic:
        raise ValueError(
            f"nothing to bootstrap from: expected an algorithm with a critic, got {settings['algorithm']}; set "
            "model.algorithm ppo or model.credit.bootstrap false"
        )
    _check_sampling(settings)
    _check_engine(settings)
    if settings["lora"] is None:
        _check_full_training(settings, critic)


def _check_full_training(settings: Mapping[str, Any], critic: bool) -> None:
    if settings["compute"].quantization != "none":
        raise ValueError(
            "a base in 4 bits cannot train: expected an adapter on it, got full training; set model.lora or "
            "model.compute.quantization none"
        )
    if settings["loss"].kl_coef:
        raise ValueError(
            "no reference policy: expected an adapter for the KL penalty; set model.lora or model.loss.kl_coef 0"
        )
    if critic:
        raise ValueError(
            "no base to put a critic on: expected a policy that trains an adapter, got full training; "
            "set model.lora or an algorithm without a critic"
        )


def check_parts(optim: OptimSettings, workers: WorkerSettings) -> None:
    """Raise ValueError for what cannot train weights that are shared out among ranks, or hand them on."""
    if optim.name != "adamw":
        raise ValueError(
            f"weights that are shared out among ranks need torch's optimizer: expected adamw, got {optim.name}; set "
            "model.optim.name adamw"
        )
    if workers.on:
        raise ValueError(
            "workers take whole weights, and no rank has them: expected model.rollout.workers.kind none where all "
            f"weights train and are shared out, got {workers.kind}; set it, or model.lora"
        )


def _check_sampling(settings: Mapping[str, Any]) -> None:
    rollout, context = settings["rollout"], settings["engine"].max_context_tokens
    if rollout.temperature <= 0:
        raise ValueError(
            f"training needs sampling: expected a temperature above 0, got {rollout.temperature}; "
            "set model.rollout.temperature"
        )
    check_choice("prompt style", rollout.prompt, PROMPT_STYLES, "model.rollout.prompt")
    if context <= rollout.max_new_tokens:
        raise ValueError(
            f"no room for a context: expected more tokens than model.rollout.max_new_tokens, {rollout.max_new_tokens}, "
            f"got {context}; raise model.engine.max_context_tokens"
        )


def _check_engine(settings: Mapping[str, Any]) -> None:
    engine = settings["engine"]
    check_choice("engine", engine.kind, ("local", "transformers", "server", "vllm"), "model.engine.kind")
    if engine.kind == "vllm":
        if engine.vllm.sleep and engine.one_step_off:
            raise ValueError(
                "vLLM would sleep while it plays: expected model.engine.vllm.sleep false with one_step_off, got true; "
                "set one of them to false"
            )
        check_installed()
    if engine.kind == "server":
        _check_transfer(engine.server.transfer, settings["lora"] is not None, settings["rollout"].workers)
        if engine.server.urls_file and engine.server.transfer == "nccl":
            raise ValueError(
                "servers that come and go cannot join a transfer by NCCL: expected model.engine.server.urls_file null, "
                f"got '{engine.server.urls_file}'; list them in model.engine.server.urls"
            )
    if engine.capture_sampling:
        _check_capture(engine)
    if engine.replay_routing:
        _check_replay(engine, settings["layout"])
    if engine.kind == "server" and engine.server.max_staleness and not settings["mismatch"].on:
        raise ValueError(
            "stale weights need a correction: expected model.mismatch.correction tis or mis, got none; set it, or "
            "model.engine.server.max_staleness 0"
        )
    if settings["rollout"].workers.max_staleness:
        _check_playing_ahead(settings)


def _check_playing_ahead(settings: Mapping[str, Any]) -> None:
    key, engine = "model.rollout.workers.max_staleness", settings["engine"]
    if engine.one_step_off:
        raise ValueError(
            f"two ways to play ahead: expected model.engine.one_step_off or {key}, got both; set one_step_off false, "
            "or max_staleness 0"
        )
    if engine.kind == "server" and engine.server.max_staleness:
        raise ValueError(
            f"staleness without a bound: expected model.engine.server.max_staleness 0 with {key}, got "
            f"{engine.server.max_staleness}; set it to 0"
        )
    if engine.replay_routing:
        raise ValueError(
            f"an episode under several weights has no one routing to replay: expected {key} 0 with "
            "model.engine.replay_routing, got more; set it to 0"
        )
    if not settings["mismatch"].on:
        raise ValueError(
            "stale weights need a correction: expected model.mismatch.correction tis or mis, got none; set it, or "
            f"{key} 0"
        )


def _check_transfer(transfer: Transfer, adapter: bool, workers: WorkerSettings) -> None:
    check_choice("transfer", transfer, get_args(Transfer), "model.engine.server.transfer")
    if adapter and transfer != "adapter":
        raise ValueError(
            f"whole weights are handed over in full training alone: expected transfer adapter, got {transfer}; set "
            "model.engine.server.transfer adapter, or model.lora null"
        )
    if not adapter and transfer == "adapter":
        raise ValueError(
            "full training has no adapter to hand to servers: expected transfer folder or nccl, got adapter; set "
            "model.engine.server.transfer folder, or model.lora"
        )
    if not adapter and workers.on:
        raise ValueError(
            "a server has one set of whole weights, which the process that trains hands over: expected "
            f"model.rollout.workers.kind none, got {workers.kind}; set it, or model.lora"
        )
    if transfer == "nccl":
        check_installed("model.engine.server.transfer nccl")


def _check_capture(engine: EngineSettings) -> None:
    other = f"kind {engine.kind}" if engine.kind != "local" else "replay_routing" if engine.replay_routing else ""
    if other or engine.compile == "":
        raise ValueError(
            "no decode steps of fixed shapes that could draw: expected the local engine's for "
            f"model.engine.capture_sampling, got {other or 'compile empty'}; set capture_sampling false"
        )


def _check_replay(engine: EngineSettings, layout: str) -> None:
    known = "set model.engine.replay_routing false, or"
    if engine.kind != "local":
        raise ValueError(
            f"no routing to replay: expected an engine that records it, local, got {engine.kind}; {known} "
            "model.engine.kind local"
        )
    if engine.compile:
        raise ValueError(
            f"compiled steps record no routing: expected model.engine.compile null, got {engine.compile}; {known} "
            "model.engine.compile null"
        )
    if layout not in ("tree", "rows"):
        raise ValueError(
            f"layout {layout} runs other contexts than the rollout: expected tree or rows to replay routing; {known} "
            "model.layout tree"
        )
