"""The same policy with wider heads, for kernels that want a multiple of 32: vLLM's on a CPU take no 24."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lightning_mem1.policy.policy import Policy

WIDTH = 32


def save_padded(policy: Policy, folder: Path) -> None:
    """Write a Qwen2 policy as a Llama whose heads are `WIDTH` wide, and whose log-probabilities are the same.

    Every head's new dimensions are zero. Rotary pairs are dimensions i and i + half, so both halves grow at their end;
    a base of theta ** (new / old) keeps every frequency; queries make up for the larger divisor sqrt(new).
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = policy.config
    old = config.hidden_size // config.num_attention_heads
    copied = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    copied += ("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "eos_token_id")
    theta = config.rope_parameters["rope_theta"] ** (WIDTH / old)
    wide = LlamaForCausalLM(
        LlamaConfig(
            **{name: getattr(config, name) for name in copied},
            head_dim=WIDTH,
            attention_bias=True,  # Llama's output projection has one too: zero
            rope_parameters={"rope_type": "default", "rope_theta": theta},
        )
    )
    state = {name: torch.zeros_like(value) for name, value in wide.state_dict().items() if "o_proj.bias" in name}
    for name, value in policy.causal_lm.state_dict().items():
        kind = name.split(".")[-2]
        if kind in ("q_proj", "k_proj", "v_proj"):
            value = rotary(value, old) * ((WIDTH / old) ** 0.5 if kind == "q_proj" else 1.0)
        elif kind == "o_proj":
            value = rotary(value.T, old).T
        state[name] = value.contiguous()
    wide.load_state_dict(state)
    wide.save_pretrained(folder, safe_serialization=True)
    policy.tokenizer.save_pretrained(folder)


def rotary(rows: Tensor, old: int) -> Tensor:
    """Rows (heads * old, ...) to (heads * WIDTH, ...): each half of a head gets its zeros behind it."""
    halves = rows.unflatten(0, (-1, 2, old // 2))
    zeros = halves.new_zeros(*halves.shape[:2], (WIDTH - old) // 2, *halves.shape[3:])
    return torch.cat([halves, zeros], dim=2).flatten(0, 2)
