"""Start a small model with an induction circuit, so that a warm start of minutes can teach it to read and to copy.

An induction circuit (Olsson et al. 2022, arXiv 2209.11895) copies by two steps: heads of the first layer mark every
token which tokens stood before it; heads of the second look for an earlier place with the same history and write out
the token found there. Large models grow it by themselves. A model of a few million parameters with a vocabulary of
thousands does not within a few hundred steps, so its first two layers begin as one. Training changes every weight from
there.

The residual stream begins in three parts, orthogonal to each other: the token itself, a code of the token before it
and a code of the one before that. A place matches when the token before it is the current token, the better when the
one before that agrees too ("color:" and "size:" both end in a colon). Matching uses only those rotary pairs that hardly
turn over a context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LOOK_BACK = 8.0  # size of the biases that make a head look one position back: a sharp peak at distance 1
CARRY = 1.5  # norm of a carried predecessor; the token's own embedding counts 1
COPY = 10.0  # norm of what is copied, likewise
MATCH, MATCH_BEFORE = 3.0, 1.0  # gains of matching queries and keys: the current token, the one before it
QUIET = 0.01  # other residual outputs begin this much smaller, so that token identity is not drowned in noise
REACH, TURN = 300, 0.35  # a rotary pair can match over REACH tokens when it turns by less than TURN radians over them


@dataclass(frozen=True)
class _Circuit:
    """Rows of an orthonormal basis of the residual stream, and where in a head matching takes place.

    Attributes:
        token: (t, width) directions that hold the token itself.
        carry: (c, width) directions that hold the code of its predecessor, c <= t.
        before: (c, width) directions that hold the code of the predecessor's predecessor.
        places: Rows of a head whose rotary pairs are slow.
        norm: Norm of an embedding.
    """

    token: Tensor
    carry: Tensor
    before: Tensor
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
    for code in (circuit.carry, circuit.before):
        embedding -= embedding @ code.T @ code
    embedding *= circuit.norm / embedding.norm(dim=1, keepdim=True)
    half = config.num_key_value_heads // 2
    _look_back(model, circuit, circuit.carry, range(half), 1)
    _look_back(model, circuit, circuit.before, range(half, 2 * half), 2)
    _match(model, circuit)


def _plan(model: Any) -> _Circuit:
    config = model.config
    heads, size = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    slow = (model.model.rotary_emb.inv_freq * REACH < TURN).nonzero()[:, 0]
    if not len(slow):
        raise ValueError("an induction start needs slow rotary pairs, got none: raise rope_theta")
    places = torch.cat([slow, slow + size // 2])
    # half of the heads carry each predecessor, all of them match; half of the stream stays with the token itself
    length = min(len(places) * heads, size * (heads // 2), config.hidden_size // 4) // heads * heads
    basis = torch.linalg.qr(torch.randn(config.hidden_size, config.hidden_size))[0].T
    norm = float(model.model.embed_tokens.weight.norm(dim=1).mean())
    return _Circuit(basis[2 * length :], basis[:length], basis[length : 2 * length], places, norm)


def _look_back(model: Any, circuit: _Circuit, target: Tensor, heads: range, distance: int) -> None:
    """First layer: some key heads attend `distance` positions back and carry a code of that token to `target`."""
    attention, frequencies = model.model.layers[0].self_attn, model.model.rotary_emb.inv_freq
    size, group, per = 2 * len(frequencies), attention.num_key_value_groups, len(target) // len(heads)
    # rotary positions make a constant key and a turned query score the sum of cos(frequency * (steps back - distance))
    turned = frequencies * distance
    key_bias = torch.cat([torch.ones_like(turned), torch.zeros_like(turned)]) * LOOK_BACK
    query_bias = torch.cat([turned.cos(), -turned.sin()]) * LOOK_BACK
    # a normalised embedding has the norm sqrt(width), and the code holds target / token of its square
    scale = CARRY * circuit.norm / (attention.q_proj.in_features * len(target) / len(circuit.token)) ** 0.5
    for number, head in enumerate(heads):
        code, start = slice(number * per, (number + 1) * per), head * size
        attention.k_proj.weight[start : start + size] *= 0.1
        attention.k_proj.bias[start : start + size] = key_bias
        attention.v_proj.weight[start : start + per] = circuit.token[code]
        for query in _queries(head, group, size):
            attention.q_proj.weight[query : query + size] *= 0.1
            attention.q_proj.bias[query : query + size] = query_bias
            attention.o_proj.weight[:, query : query + per] = target[code].T * scale / group


def _match(model: Any, circuit: _Circuit) -> None:
    """Second layer: queries hold the current history, keys that of the place before; what is found is written out."""
    attention, heads = model.model.layers[1].self_attn, model.config.num_key_value_heads
    size, group = attention.head_dim, attention.num_key_value_groups
    per, wide = len(circuit.carry) // heads, min(size, len(circuit.token) // heads)
    places = circuit.places[:per]
    scale = COPY * circuit.norm * ((1 + 2 * CARRY**2) / attention.q_proj.in_features) ** 0.5
    for head in range(heads):
        code, start = slice(head * per, (head + 1) * per), head * size
        written = circuit.token[head * wide : (head + 1) * wide]
        attention.k_proj.weight[start : start + size] *= 0.3
        # both histories share the head's places: other rows of the code keep them from being taken for each other
        other = slice(code.start - per, code.stop - per) if head else slice(len(circuit.carry) - per, None)
        attention.k_proj.weight[start + places] = circuit.carry[code] * MATCH + circuit.before[other] * MATCH_BEFORE
        attention.v_proj.weight[start : start + wide] = written
        for query in _queries(head, group, size):
            attention.q_proj.weight[query : query + size] *= 0.3
            own, last = circuit.token[code] * MATCH, circuit.carry[other] * MATCH_BEFORE
            attention.q_proj.weight[query + places] = own + last
            attention.o_proj.weight[:, query : query + wide] = written.T * scale / group


def _queries(head: int, group: int, size: int) -> range:
    """First rows of the query heads that share key head `head`."""
    return range(head * group * size, (head + 1) * group * size, size)
