"""Start a small model with an induction circuit, so that a warm start of minutes can teach it to read and to copy.

An induction circuit (Olsson et al. 2022, arXiv 2209.11895) copies by two steps: heads of the first layer tell every
token which token stood before it; heads of the second look for an earlier place whose predecessor is the current token
and write out the token found there. Large models grow it by themselves. A model of a few million parameters with a
vocabulary of thousands does not within a few hundred steps, so its first two layers begin as one. Training changes
every weight from there.
"""

from __future__ import annotations

from typing import Any

import torch

LOOK_BACK = 8.0  # size of the biases that make a head look one position back: a sharp peak at distance 1
MATCH = 1.5  # gain of the matching queries and keys
WRITE, COPY = 0.2, 0.3  # gains of what the two kinds of heads add to the residual stream
QUIET = 0.05  # other residual outputs begin this much smaller, so that token identity is not drowned in noise


@torch.no_grad()
def start_with_induction(model: Any) -> None:
    """Rewrite the initial attention of the first two layers of a Qwen2 in place (random directions from torch's RNG).

    Args:
        model: A `Qwen2ForCausalLM` with at least two layers and an even number of key heads, fresh from its config.

    Raises:
        ValueError: too few layers or an odd number of key heads.
    """
    config = model.config
    if config.num_hidden_layers < 2 or config.num_key_value_heads % 2:
        raise ValueError(
            "an induction start needs at least 2 layers and an even number of key heads, got "
            f"{config.num_hidden_layers} and {config.num_key_value_heads}"
        )
    for layer in model.model.layers:
        layer.mlp.down_proj.weight *= QUIET
        layer.self_attn.o_proj.weight *= QUIET
    heads, size = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    read, carry = _directions(config.hidden_size, heads, size), _directions(config.hidden_size, heads, size)
    _look_back(model, read, carry, heads // 2)
    _match(model, read, carry, heads // 2)


def _directions(width: int, heads: int, size: int) -> list[torch.Tensor]:
    """One (size, width) matrix of orthonormal rows per head, all orthogonal to each other."""
    basis = torch.linalg.qr(torch.randn(width, width))[0]
    return [basis[:, head * size : (head + 1) * size].T.contiguous() for head in range(heads)]


def _look_back(model: Any, read: list[torch.Tensor], carry: list[torch.Tensor], count: int) -> None:
    """First layer: the first `count` key heads attend one position back and carry that token's identity along."""
    attention, frequencies = model.model.layers[0].self_attn, model.model.rotary_emb.inv_freq
    size, group = len(read[0]), attention.num_key_value_groups
    # rotary positions turn a constant key and a constant query, one step behind, into cos(frequency * (distance - 1))
    key_bias = torch.cat([torch.ones_like(frequencies), torch.zeros_like(frequencies)]) * LOOK_BACK
    query_bias = torch.cat([frequencies.cos(), -frequencies.sin()]) * LOOK_BACK
    for head in range(count):
        rows = slice(head * size, (head + 1) * size)
        attention.k_proj.weight[rows] *= 0.1
        attention.k_proj.bias[rows] = key_bias
        attention.v_proj.weight[rows] = read[head]
        for query in _rows_of_group(head, group, size):
            attention.q_proj.weight[query] *= 0.1
            attention.q_proj.bias[query] = query_bias
            attention.o_proj.weight[:, query] = carry[head].T * WRITE / group


def _match(model: Any, read: list[torch.Tensor], carry: list[torch.Tensor], count: int) -> None:
    """Second layer: queries hold the current token, keys the carried predecessor; what is found is written out."""
    attention = model.model.layers[1].self_attn
    size, group = len(read[0]), attention.num_key_value_groups
    for head in range(len(read)):
        rows = slice(head * size, (head + 1) * size)
        attention.k_proj.weight[rows] = carry[head % count] * MATCH
        attention.v_proj.weight[rows] = read[head]
        for query in _rows_of_group(head, group, size):
            attention.q_proj.weight[query] = read[head % count] * MATCH
            attention.o_proj.weight[:, query] = read[head].T * COPY / group


def _rows_of_group(head: int, group: int, size: int) -> list[slice]:
    """Rows of the query heads that share key head `head`."""
    return [slice(q * size, (q + 1) * size) for q in range(head * group, (head + 1) * group)]
