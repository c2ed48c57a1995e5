"""Start a small model with an induction circuit, so that a warm start of minutes can teach it to read and to copy.

An induction circuit (Olsson et al. 2022, arXiv 2209.11895) copies by two steps: heads of the first layer tell every
token which token stood before it; heads of the second look for an earlier place whose predecessor is the current token
and write out the token found there. Large models grow it by themselves. A model of a few million parameters with a
vocabulary of thousands does not within a few hundred steps, so its first two layers begin as one. Training changes
every weight from there.

The residual stream begins in two parts, orthogonal to each other: in one stands the token itself, in the other
(`carry`) a code of its predecessor. Matching uses only those rotary pairs that hardly turn over a context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LOOK_BACK = 8.0  # size of the biases that make a head look one position back: a sharp peak at distance 1
CARRY = 1.5  # norm of the carried predecessor; the token's own embedding counts 1
COPY = 8.0  # norm of what is copied, likewise
MATCH = 3.0  # gain of matching queries and of matching keys
QUIET = 0.02  # other residual outputs begin this much smaller, so that token identity is not drowned in noise
REACH, TURN = 300, 0.35  # a rotary pair can match over REACH tokens when it turns by less than TURN radians over them


@dataclass(frozen=True)
class _Circuit:
    """Rows of an orthonormal basis of the residual stream, and where in a head matching takes place.

    Attributes:
        token: (t, width) directions that hold the token itself.
        carry: (c, width) directions that hold the code of its predecessor, c <= t.
        places: Rows of a head whose rotary pairs are slow.
        norm: Norm of an embedding.
    """

    token: Tensor
    carry: Tensor
    places: Tensor
    norm: float


@torch.no_grad()
def start_with_induction(model: Any) -> None:
    """Rewrite embeddings and the first two layers' attention of a Qwen2 in place (directions from torch's RNG).

    Args:
        model: A `Qwen2ForCausalLM` with at least two layers, an even number of key heads and slow rotary pairs (a
            large `rope_theta`), fresh from its config.

    Raises:
        ValueError: too few layers, an odd number of key heads, or no rotary pair slow enough to match with.
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
    circuit = _plan(model)
    embedding = model.model.embed_tokens.weight
    embedding -= embedding @ circuit.carry.T @ circuit.carry
    embedding *= circuit.norm / embedding.norm(dim=1, keepdim=True)
    _look_back(model, circuit)
    _match(model, circuit)


def _plan(model: Any) -> _Circuit:
    config = model.config
    heads, size = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    slow = (model.model.rotary_emb.inv_freq * REACH < TURN).nonzero()[:, 0]
    if not len(slow):
        raise ValueError("an induction start needs slow rotary pairs, got none: raise rope_theta")
    places = torch.cat([slow, slow + size // 2])
    # half of the heads carry, all of them match; more than half of the stream stays with the token itself
    length = min(len(places) * heads, size * (heads // 2), config.hidden_size // 2) // heads * heads
    basis = torch.linalg.qr(torch.randn(config.hidden_size, config.hidden_size))[0].T
    norm = float(model.model.embed_tokens.weight.norm(dim=1).mean())
    return _Circuit(basis[length:], basis[:length], places, norm)


def _look_back(model: Any, circuit: _Circuit) -> None:
    """First layer: half of the key heads attend one position back and carry a code of that token along."""
    attention, frequencies = model.model.layers[0].self_attn, model.model.rotary_emb.inv_freq
    size, group, count = 2 * len(frequencies), attention.num_key_value_groups, model.config.num_key_value_heads // 2
    # rotary positions turn a constant key and a constant query, one step behind, into cos(frequency * (distance - 1))
    key_bias = torch.cat([torch.ones_like(frequencies), torch.zeros_like(frequencies)]) * LOOK_BACK
    query_bias = torch.cat([frequencies.cos(), -frequencies.sin()]) * LOOK_BACK
    per = len(circuit.carry) // count
    # a normalised embedding has the norm sqrt(width), and the code holds carry / token of its square
    scale = CARRY * circuit.norm / (attention.q_proj.in_features * len(circuit.carry) / len(circuit.token)) ** 0.5
    for head in range(count):
        code, start = slice(head * per, (head + 1) * per), head * size
        attention.k_proj.weight[start : start + size] *= 0.1
        attention.k_proj.bias[start : start + size] = key_bias
        attention.v_proj.weight[start : start + per] = circuit.token[code]
        for query in _queries(head, group, size):
            attention.q_proj.weight[query : query + size] *= 0.1
            attention.q_proj.bias[query : query + size] = query_bias
            attention.o_proj.weight[:, query : query + per] = circuit.carry[code].T * scale / group


def _match(model: Any, circuit: _Circuit) -> None:
    """Second layer: queries hold the current token, keys the carried predecessor; what is found is written out."""
    attention, heads = model.model.layers[1].self_attn, model.config.num_key_value_heads
    size, group = attention.head_dim, attention.num_key_value_groups
    per, wide = len(circuit.carry) // heads, min(size, len(circuit.token) // heads)
    places = circuit.places[:per]
    scale = COPY * circuit.norm * ((1 + CARRY**2) / attention.q_proj.in_features) ** 0.5
    for head in range(heads):
        code, start = slice(head * per, (head + 1) * per), head * size
        written = circuit.token[head * wide : (head + 1) * wide]
        attention.k_proj.weight[start : start + size] *= 0.3
        attention.k_proj.weight[start + places] = circuit.carry[code] * MATCH
        attention.v_proj.weight[start : start + wide] = written
        for query in _queries(head, group, size):
            attention.q_proj.weight[query : query + size] *= 0.3
            attention.q_proj.weight[query + places] = circuit.token[code] * MATCH
            attention.o_proj.weight[:, query : query + wide] = written.T * scale / group


def _queries(head: int, group: int, size: int) -> range:
    """First rows of the query heads that share key head `head`."""
    return range(head * group * size, (head + 1) * group * size, size)
