"""One attention function for training and rollout, registered with transformers under the name `NAME`.

It looks at the extra keyword arguments of `model(...)`: with ``tree=`` it attends along a segment table (training),
with ``slots=`` it attends over an engine's key-value pool (rollout), with neither it is ordinary attention: causal over
padded rows (layout `rows`), or under a boolean (B, 1, L, L) mask (the inexact layouts, for comparison alone). No path
builds a dense (L, L) mask over a packed row: the largest mask is per segment.

What a layer sees by position (sliding windows, chunks) is not in the keyword arguments: `policy.inspection` finds it
out once and leaves it at the layer, as an `AttentionLayer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_mem1.policy.scores import EVERYTHING, PositionRule, Scores, attend
from lightning_mem1.policy.tree_kernels import TREE_KERNELS
from lightning_mem1.policy.tree_table import TreeTable

NAME = "lightning_mem1"
LAYER = "lightning_mem1_layer"  # attribute of an attention module: its `AttentionLayer`


class SlotAttention(Protocol):
    """What an engine hands to `model(...)` as ``slots=``."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        """Store keys and values (1, heads, T, dim) of a layer and return attention output (1, T, heads, dim)."""
        ...


class Watcher(Protocol):
    """Sees what a model asks of its attention, see `watched`."""

    def mask(self, q_length: int, mask_function: Callable[..., Tensor], **kwargs: Any) -> Tensor:
        """The mask for what transformers' mask interface was given."""
        ...

    def attend(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scores: Scores,
        others: Mapping[str, Any],
    ) -> Tensor:
        """Attention output (B, L, H, V) of a layer; `others` are the other keyword arguments it was called with."""
        ...


@dataclass(frozen=True)
class AttentionLayer:
    """What is known of a layer that attends.

    Attributes:
        number: Its place among the layers that attend.
        rule: What a token sees by position.
        num_key_heads: Heads of keys and values.
        key_width: Dimensions of a key.
        value_width: Dimensions of a value.
    """

    number: int
    rule: PositionRule
    num_key_heads: int
    key_width: int
    value_width: int


@dataclass(frozen=True)
class Pass:
    """What a forward pass goes along.

    Attributes:
        tree, slots, tree_kernel: As in `attention_forward`, for models that do not hand keyword arguments on.
        lengths: Like the position ids: the length of context that each token's rotary frequencies are of, for models
            where these depend on it (`policy.rotary`); None for what transformers takes.
        experts: (B, L, width) the experts that routers have to take, -1 where they choose (`policy.routing`); None for
            what they choose everywhere.
        chosen: Where routers leave what they chose, by their first column; None for nowhere.
    """

    tree: TreeTable | None = None
    slots: SlotAttention | None = None
    tree_kernel: str = "segments"
    lengths: Tensor | None = None
    experts: Tensor | None = None
    chosen: dict[int, Tensor] | None = None


_CARRIED: ContextVar[Pass | None] = ContextVar("carried", default=None)
_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def carrying(what: Pass | None) -> Iterator[None]:
    """Around a forward pass along `what`: no mask is made, and layers that drop keyword arguments attend along it."""
    token = _CARRIED.set(what)
    try:
        yield
    finally:
        _CARRIED.reset(token)


def carried() -> Pass | None:
    """What is carried now."""
    return _CARRIED.get()


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Inside, masks and attention are the watcher's."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    tree: TreeTable | None = None,
    slots: SlotAttention | None = None,
    tree_kernel: str = "segments",
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The function that transformers calls in every layer; shapes as in `segment_attention`."""
    if slots is None and torch.compiler.is_compiling():  # a layer that trains, see `policy.compiling`
        more = {"scaling": scaling, "softcap": softcap, "s_aux": s_aux, "tree": tree, "tree_kernel": tree_kernel}
        return _uncompiled(module, query, key, value, attention_mask, **more, **kwargs)
    layer: AttentionLayer | None = getattr(module, LAYER, None)
    scores = Scores(scaling, EVERYTHING if layer is None else layer.rule, softcap, s_aux)
    if tree is None and slots is None:
        if (watcher := _WATCHER.get()) is not None:
            return watcher.attend(module, query, key, value, attention_mask, scores, kwargs), None
        if (along := _CARRIED.get()) is not None:
            tree, slots, tree_kernel = along.tree, along.slots, along.tree_kernel
    if tree is not None:
        return TREE_KERNELS[tree_kernel](query, key, value, tree, scores), None
    if slots is not None:
        number = int(module.layer_idx) if layer is None else layer.number  # type: ignore[arg-type]
        return slots.attend(number, query, key, value, scores), None
    return _in_rows(module, query, key, value, attention_mask, scores, **kwargs), None


@torch.compiler.disable
def _uncompiled(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    return attention_forward(*args, **kwargs)


def _in_rows(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scores: Scores,
    **kwargs: Any,
) -> Tensor:
    """Ordinary attention (B, L, H, V); transformers has put the layer's rule into the mask."""
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(
            f"a mask of ones and zeros is added to the scores and hides nothing: expected bool, got "
            f"{mask.dtype}; compare it with 0 first"
        )
    if scores.written_out:
        if mask is None:
            places = torch.arange(key.shape[2], device=query.device)
            mask = (places[-query.shape[2] :, None] >= places)[None, None]
        return attend(query, key, value, mask, scores).transpose(1, 2).contiguous()
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(module, query, key, value, mask, scaling=scores.scaling, **kwargs)[0]


def attention_mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """The mask that transformers prepares: none for tree and slots, its own for rows (4-D ones pass by)."""
    if torch.compiler.is_compiling():  # the engine's decode steps; looking at what is carried would cut their graph
        return None
    if (watcher := _WATCHER.get()) is not None:
        return watcher.mask(**kwargs)
    if attention_mask is None and (along := _CARRIED.get()) and (along.tree is not None or along.slots is not None):
        return None
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


def register() -> str:
    """Make the function known to transformers (safe to repeat) and return its name."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attention_forward)
    AttentionMaskInterface.register(NAME, attention_mask)
    return NAME
