"""Attention along a segment table: batched SDPA over segments, FlexAttention, FlashAttention."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mem1.policy.scores import Scores, attend
from lightning_mem1.policy.tree_table import TreeTable

SIXTEEN_BITS = (torch.bfloat16, torch.float16)


def segment_attention(query: Tensor, key: Tensor, value: Tensor, table: TreeTable, scores: Scores) -> Tensor:
    """Exact tree attention by batched SDPA over segments, with backward on every device.

    Args:
        query: (1, H, T, D).
        key: (1, H_kv, T, D).
        value: (1, H_kv, T, V).
        table: The segments.
        scores: Of the layer.

    Returns:
        (1, T, H, V).
    """
    query, key, value = query[0], key[0], value[0]
    repeats = query.shape[0] // key.shape[0]
    outputs = []
    for bucket in table.buckets_under(scores.rule):
        q = _taken(query, 1, bucket.query_index).transpose(0, 1)
        k = _taken(key, 1, bucket.key_index).transpose(0, 1)
        v = _taken(value, 1, bucket.key_index).transpose(0, 1)
        if scores.written_out:
            out = attend(q, k, v, bucket.mask, scores)
        elif q.device.type == "cpu":  # whose kernel lets heads share keys, and would turn a boolean mask into numbers
            mask = bucket.added.to(q.dtype)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scores.scaling, enable_gqa=True)
        else:
            k, v = (each.repeat_interleave(repeats, dim=1) for each in (k, v))
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bucket.mask, scale=scores.scaling)
        outputs.append(_taken(out.transpose(1, 2).flatten(0, 1), 0, bucket.places))
    return _taken(torch.cat(outputs), 0, table.restore)[None]


def _taken(source: Tensor, dim: int, index: Tensor) -> Tensor:
    """The entries of a dimension that an index of any shape names, which takes the dimension's place.

    Gradients are summed in the way that costs a device least: indexing sorts on a GPU, and `index_select` adds one
    entry after the other on a CPU.
    """
    if source.is_cuda:
        return source.index_select(dim, index.flatten()).unflatten(dim, index.shape)
    return source[(slice(None),) * dim + (index,)]


def flex_tree_attention(query: Tensor, key: Tensor, value: Tensor, table: TreeTable, scores: Scores) -> Tensor:
    """The same by FlexAttention with a block mask made from the segment table (CUDA; no backward on CPU)."""
    kernel = _flex_kernel(query.is_cuda)
    more: dict[str, Any] = {"scale": scores.scaling, "enable_gqa": True, "return_lse": scores.sinks is not None}
    if scores.softcap is not None:
        more["score_mod"] = _softcap(scores.softcap)
    out = kernel(query, key, value, block_mask=table.block_mask_under(scores.rule), **more)
    if scores.sinks is not None:
        out, total = out  # what a sink adds to the sum of weights, all outputs lose alike
        out = out * torch.sigmoid(total - scores.sinks[:, None])[..., None].to(out.dtype)
    return out.transpose(1, 2).contiguous()


@cache
def _softcap(cap: float) -> Callable[..., Tensor]:
    return lambda score, batch, head, query, key: cap * torch.tanh(score / cap)


def varlen_tree_attention(query: Tensor, key: Tensor, value: Tensor, table: TreeTable, scores: Scores) -> Tensor:
    """The same by FlashAttention over blocks of different lengths (CUDA, 16 bits).

    Every block is a sequence of its own, whose keys are its root's and its own; causal attention then lets a query see
    all keys but those behind its own token, and a window counts back from there. What the kernel does not know (chunks,
    soft caps, sinks) is left to FlexAttention.
    """
    if scores.written_out or scores.rule.chunk is not None:
        return flex_tree_attention(query, key, value, table, scores)
    from torch.nn.attention.varlen import varlen_attn

    if torch.is_autocast_enabled(query.device.type):  # torch knows no rule for this kernel, as it does for SDPA
        query, key, value = (each.to(torch.get_autocast_dtype(query.device.type)) for each in (query, key, value))
    if not query.is_cuda or query.dtype not in SIXTEEN_BITS:
        raise ValueError(
            f"model.compute.attention varlen runs in 16 bits on a GPU, got {query.dtype} on {query.device.type}; "
            "set it to auto"
        )
    query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))
    index, ends_q, ends_k, longest_q, longest_k = table.sequences
    key, value = _taken(key, 0, index), _taken(value, 0, index)
    width = value.shape[2]
    value = F.pad(value, (0, key.shape[2] - width))  # the kernel knows one width
    back = -1 if scores.rule.window is None else scores.rule.window - 1
    more: dict[str, Any] = {"scale": scores.scaling, "window_size": (back, 0)}
    if "enable_gqa" in inspect.signature(varlen_attn).parameters:
        more["enable_gqa"] = True
    else:  # torch 2.11
        repeats = query.shape[1] // key.shape[1]
        key, value = (each.repeat_interleave(repeats, dim=1) for each in (key, value))
    out: Any = varlen_attn(query, key, value, ends_q, ends_k, longest_q, longest_k, **more)
    return out[None, ..., :width]  # type: ignore[no-any-return]


@cache
def _flex_kernel(compiled: bool) -> Any:
    """Compiled once per process; `dynamic` keeps it from compiling again for every length of row."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if compiled else flex_attention


TREE_KERNELS: Mapping[str, Callable[[Tensor, Tensor, Tensor, TreeTable, Scores], Tensor]] = {
    "segments": segment_attention,
    "flex": flex_tree_attention,
    "varlen": varlen_tree_attention,
}
