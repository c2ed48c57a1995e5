"""Tiny random models with layers that keep a state, and the same models as transformers runs them."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor

from lightning_mem1.context.contexts import contexts
from lightning_mem1.policy.attention import register
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.types import Trajectory
from tiny import tiny_tokenizer

BASE: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.12,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
DELTA = {
    "head_dim": 12,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MAMBA = {
    "mamba_n_heads": 6,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "mamba_n_groups": 2,
    "mamba_chunk_size": 16,
    "mamba_expand": 2,
}
GRANITE = {**MAMBA, "layer_types": ["mamba", "attention"] * 2, "shared_intermediate_size": 32}
NEMOTRON = {
    "layers_block_type": ["mamba", "attention", "moe", "mamba"],
    "mamba_num_heads": 6,
    "mamba_head_dim": 16,
    "ssm_state_size": 16,
    "n_groups": 2,
    "chunk_size": 16,
    "head_dim": 12,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32,
}
JAMBA = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3_5": ("Qwen3_5TextConfig", DELTA),
    "qwen3_5_moe": ("Qwen3_5MoeTextConfig", {**DELTA, **EXPERTS, "shared_expert_intermediate_size": 32}),
    "qwen3_next": ("Qwen3NextConfig", {**DELTA, **EXPERTS, "shared_expert_intermediate_size": 32}),
    "olmo_hybrid": ("OlmoHybridConfig", {k: v for k, v in DELTA.items() if k != "head_dim"}),
    "lfm2": ("Lfm2Config", {"layer_types": ["conv", "full_attention"] * 2}),
    "lfm2_moe": ("Lfm2MoeConfig", {**EXPERTS, "layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1}),
    "granite_hybrid": (
        "GraniteMoeHybridConfig",
        {**GRANITE, "num_local_experts": 0, "position_embedding_type": "rope"},
    ),
    "granite_moe_hybrid": ("GraniteMoeHybridConfig", {**GRANITE, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "bamba": ("BambaConfig", {**MAMBA, "attn_layer_indices": [1, 3]}),
    "falcon_h1": ("FalconH1Config", {**MAMBA, "mamba_d_ssm": 96, "head_dim": 12}),
    "nemotron_h": ("NemotronHConfig", NEMOTRON),
    "jamba": ("JambaConfig", {**JAMBA, "num_experts": 4, "num_experts_per_tok": 2, "mamba_d_state": 16}),
}
ALL = os.environ.get("LIGHTNING_MEM1_ARCHITECTURES") == "all"
FAMILIES = list(CONFIGS) if ALL else ["qwen3_5", "lfm2", "granite_hybrid", "jamba"]
# the gated delta rule divides what little a head holds by its own size: float32 rounds differently in chunks of other
# lengths and token by token, which the model itself does between reading and generating
LIMITS = {"olmo_hybrid": 5e-5, "qwen3_5": 5e-5, "qwen3_5_moe": 5e-5, "qwen3_next": 5e-5}  # nats
EXACT = 1e-5


def limit(family: str) -> float:
    """How far log-probs of the same token may be apart, in nats."""
    return LIMITS.get(family, EXACT)


def recurrent_config(family: str, **changes: Any) -> Any:
    """The config of a tiny model."""
    name, values = CONFIGS[family]
    return getattr(transformers, name)(**{**BASE, "vocab_size": len(tiny_tokenizer()), **values, **changes})


def recurrent_policy(
    family: str, lora: LoraSettings | None = None, change: Callable[[Any], Any] = lambda model: model, **changes: Any
) -> tuple[Policy, Any]:
    """A policy and the same model as transformers runs it, with eager attention and without adapters.

    Args:
        family: One of `CONFIGS`.
        lora: Adapter settings; its B matrices are random, so that it matters.
        change: Applied to both models before the policy is made.
        changes: Of the config.
    """
    torch.manual_seed(0)
    config = recurrent_config(family, **changes)
    plain = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="eager").eval()
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=register())
    model.load_state_dict(plain.state_dict())
    policy = Policy(change(model), tiny_tokenizer(), lora, source=family)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return policy.eval(), change(plain)


@torch.no_grad()
def plain_logprobs(model: Any, trajectories: Sequence[Trajectory], mode: str) -> Tensor:
    """Log-probs (N,) of all action tokens by a model of transformers, one context at a time, in nats."""
    found = []
    for trajectory in trajectories:
        for context, turn in zip(contexts(trajectory, mode), trajectory.turns, strict=True):
            logits = model(input_ids=torch.tensor([[*context, *turn.action_ids]]), use_cache=False).logits[0]
            logps = torch.log_softmax(logits[len(context) - 1 : -1].float(), dim=-1)
            found.append(logps.gather(1, torch.tensor(turn.action_ids)[:, None])[:, 0])
    return torch.cat(found)
