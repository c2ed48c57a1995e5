"""A fixed pool of key-value slots: what the local engine attends over.

The pool is allocated once. Its size depends on the number of slots and on the longest context, not on how many turns
an episode has, and memory mode `mem1` bounds the longest context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """Tokens to run: positions start .. start + count of a slot."""

    slot: int
    start: int
    count: int


class SlotPool:
    """Keys and values of every layer for `num_slots` contexts of at most `max_tokens` tokens.

    Args:
        config: The model's transformers config.
        num_slots: Contexts held at once.
        max_tokens: Longest context, generated tokens included.
    """

    def __init__(
        self, config: object, num_slots: int, max_tokens: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        heads = int(getattr(config, "num_key_value_heads"))  # noqa: B009  (config is duck-typed)
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads  # type: ignore[attr-defined]
        layers = int(config.num_hidden_layers)  # type: ignore[attr-defined]
        shape = (layers, num_slots, heads, max_tokens, int(width))
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    def copy(self, source: int, target: int, count: int) -> None:
        """Give slot `target` the first `count` tokens of slot `source`."""
        for pool in (self.keys, self.values):
            pool[:, target, :, :count] = pool[:, source, :, :count]

    @property
    def num_bytes(self) -> int:
        """Bytes that the pool holds, whatever the horizon."""
        return 2 * self.keys.numel() * self.keys.element_size()


class StepPlan:
    """One forward pass: single new tokens of running slots first, then the new tokens of starting ones.

    The packed row holds `decode` (one token each) and then every span of `prefill`. Call `attend` per layer.
    """

    def __init__(self, pool: SlotPool, decode: Sequence[Span], prefill: Sequence[Span]) -> None:
        self.pool = pool
        self.num_decode = len(decode)
        device = pool.keys.device
        spans = [*decode, *prefill]
        self.slots = torch.tensor([s.slot for s in spans for _ in range(s.count)], device=device)
        self.positions = torch.tensor([s.start + i for s in spans for i in range(s.count)], device=device)
        self._plan_decode(decode, device)
        self._plan_prefill(prefill, device)

    def _plan_decode(self, decode: Sequence[Span], device: torch.device) -> None:
        if not decode:
            return
        # attend over a view of the lowest slots instead of gathering: idle slots in between cost less than a copy
        self.rows = max(span.slot for span in decode) + 1
        self.reach = max(span.start for span in decode) + 1
        last = torch.zeros(self.rows, dtype=torch.long, device=device)
        last[self.slots[: self.num_decode]] = self.positions[: self.num_decode]
        self.decode_mask = (torch.arange(self.reach, device=device) <= last[:, None])[:, None, None]

    def _plan_prefill(self, prefill: Sequence[Span], device: torch.device) -> None:
        if not prefill:
            return
        width = max(span.count for span in prefill)
        steps = torch.arange(width, device=device)
        counts = torch.tensor([[span.count] for span in prefill], device=device)
        starts = torch.tensor([[span.start] for span in prefill], device=device)
        self.prefill_slots = torch.tensor([span.slot for span in prefill], device=device)
        self.prefill_valid = steps < counts
        offsets = counts.cumsum(0) - counts + self.num_decode
        self.prefill_index = torch.where(self.prefill_valid, offsets + steps, self.num_decode)
        self.prefill_reach = int((starts + counts).max())
        reach = torch.arange(self.prefill_reach, device=device)
        self.prefill_mask = (reach <= (starts + steps)[..., None])[:, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Store this pass's keys and values, attend, and return (1, T, heads, dim)."""
        keys, values = self.pool.keys[layer], self.pool.values[layer]
        keys[self.slots, :, self.positions] = key[0].transpose(0, 1)
        values[self.slots, :, self.positions] = value[0].transpose(0, 1)
        query = query[0].transpose(0, 1)  # (T, heads, dim)
        parts = []
        if self.num_decode:
            parts.append(self._decode(query[: self.num_decode], keys, values, scaling))
        if self.num_decode < len(query):
            parts.append(self._prefill(query, keys, values, scaling))
        return torch.cat(parts)[None]

    def _decode(self, query: Tensor, keys: Tensor, values: Tensor, scaling: float | None) -> Tensor:
        heads, width = query.shape[1:]
        shared = heads // keys.shape[1]  # query heads per key head: they become queries of one attention call
        slots = self.slots[: self.num_decode]
        q = query.new_zeros(self.rows, keys.shape[1], shared, width)
        q[slots] = query.view(-1, keys.shape[1], shared, width)
        k, v = keys[: self.rows, :, : self.reach], values[: self.rows, :, : self.reach]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.decode_mask, scale=scaling)
        return out[slots].reshape(-1, heads, width)

    def _prefill(self, query: Tensor, keys: Tensor, values: Tensor, scaling: float | None) -> Tensor:
        shared = query.shape[1] // keys.shape[1]
        q = query[self.prefill_index].transpose(1, 2)
        k = keys[self.prefill_slots, :, : self.prefill_reach].repeat_interleave(shared, dim=1)
        v = values[self.prefill_slots, :, : self.prefill_reach].repeat_interleave(shared, dim=1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.prefill_mask, scale=scaling)
        return out.transpose(1, 2)[self.prefill_valid]
