"""A fixed pool of key-value slots: what the local engine attends over.

The pool is allocated once. Its size depends on the number of slots and on the longest context, not on how many turns
an episode has, and memory mode `mem1` bounds the longest context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mem1.engine.local.recurrent import PassStates, StatePool
from lightning_mem1.policy.recurrent import Rows


@dataclass(frozen=True)
class Span:
    """Tokens to run: positions start .. start + count of a slot, whose state is saved at length `saves`."""

    slot: int
    start: int
    count: int
    saves: int | None = None


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
        self.states = StatePool(num_slots, device)

    def store(self, layer: int, slots: Tensor, positions: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values (1, heads, T, dim) of T tokens of a layer.

        Args:
            layer: Number of the layer.
            slots: (T,) slot of each token.
            positions: (T,) its position in the slot.
            key: Of the packed row.
            value: Likewise.

        Returns:
            The layer's keys and values (slots, heads, tokens, dim), views of the pool.
        """
        return store(self.keys[layer], self.values[layer], slots, positions, key, value)

    def copy(self, source: int, target: int, count: int) -> None:
        """Give slot `target` the first `count` tokens of slot `source`."""
        for pool in (self.keys, self.values):
            pool[:, target, :, :count] = pool[:, source, :, :count]

    @property
    def num_bytes(self) -> int:
        """Bytes that the pool holds, whatever the horizon."""
        return 2 * self.keys.numel() * self.keys.element_size() + self.states.num_bytes


def store(
    keys: Tensor, values: Tensor, slots: Tensor, positions: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Write into one layer's part of a pool and return it, see `SlotPool.store`."""
    keys[slots, :, positions] = key[0].transpose(0, 1)
    values[slots, :, positions] = value[0].transpose(0, 1)
    return keys, values


@dataclass(frozen=True)
class _Run:
    """Slots first .. stop that decode in one attention call, over a view of the pool.

    `turns` is which decoding turns stand there, `rows` their places among these slots (None: one in each, in order),
    `mask` (slots, 1, 1, reach) is added to the scores.
    """

    first: int
    stop: int
    turns: slice
    rows: Tensor | None
    mask: Tensor


class StepPlan:
    """One forward pass: single new tokens of running slots first, then the new tokens of starting ones.

    The packed row holds `decode` (one token each) and then every span of `prefill`. Call `attend` per layer.

    Attention reads the pool where it stands: copying the keys of the slots that are in use would cost more than
    attending over them. On a CPU, where a call costs little, neighbours that decode make a call, and so does each span
    of prefill: no idle slot is read and little is padded. On other devices there is one call for each of the two kinds.

    Args:
        pool: The keys and values.
        decode: One token each, in the order of their slots.
        prefill: New tokens of starting turns.
        apart: Many small calls in place of two; None on a CPU alone.
    """

    def __init__(
        self, pool: SlotPool, decode: Sequence[Span], prefill: Sequence[Span], apart: bool | None = None
    ) -> None:
        self.pool = pool
        self.decode, self.num_decode = decode, len(decode)
        self.prefill = prefill
        device = pool.keys.device
        spans = [*decode, *prefill]
        self.slots = torch.tensor([s.slot for s in spans for _ in range(s.count)], device=device)
        self.positions = torch.tensor([s.start + i for s in spans for i in range(s.count)], device=device)
        self.apart = device.type == "cpu" if apart is None else apart
        ends = _ends_of_neighbours(decode) if self.apart else [len(decode)] if decode else []
        self.runs = [self._run(decode, slice(start, end)) for start, end in zip([0, *ends], ends, strict=False)]
        if self.apart:
            self.causal_masks = [self._later(span) for span in prefill]
        else:
            self._plan_padded(prefill, device)

    def _run(self, decode: Sequence[Span], turns: slice) -> _Run:
        spans = decode[turns]
        first, stop = spans[0].slot, spans[-1].slot + 1
        device = self.pool.keys.device
        last = torch.zeros(stop - first, dtype=torch.long, device=device)
        rows = self.slots[turns] - first
        last[rows] = self.positions[turns]
        reach = torch.arange(max(span.start for span in spans) + 1, device=device)
        mask = torch.zeros(len(last), len(reach), dtype=self.pool.keys.dtype, device=device)
        mask.masked_fill_(reach > last[:, None], -torch.inf)
        return _Run(first, stop, turns, None if len(spans) == len(last) else rows, mask[:, None, None])

    def _later(self, span: Span) -> Tensor:
        """(count, start + count): minus infinity on the keys that come after a query."""
        mask = torch.full(
            (span.count, span.start + span.count), -torch.inf, dtype=self.pool.keys.dtype, device=self.pool.keys.device
        )
        return mask.triu_(span.start + 1)

    def _plan_padded(self, prefill: Sequence[Span], device: torch.device) -> None:
        if not prefill:
            return
        width = max(span.count for span in prefill)
        steps = torch.arange(width, device=device)
        counts = torch.tensor([[span.count] for span in prefill], device=device)
        starts = torch.tensor([[span.start] for span in prefill], device=device)
        self.prefill_slots = torch.tensor([span.slot for span in prefill], device=device)
        valid = steps < counts
        self.prefill_places = valid.flatten().nonzero()[:, 0]  # found once: a mask would be waited for in every layer
        offsets = counts.cumsum(0) - counts + self.num_decode
        self.prefill_index = torch.where(valid, offsets + steps, self.num_decode)
        self.prefill_reach = int((starts + counts).max())
        reach = torch.arange(self.prefill_reach, device=device)
        self.prefill_mask = (reach <= (starts + steps)[..., None])[:, None]

    @cached_property
    def _states(self) -> PassStates:
        return PassStates(self.pool.states, self.decode, self.prefill)

    def recur(self, layer: int, hidden: Tensor, rows: Rows) -> Tensor:
        """Run this pass's tokens (1, T, width) through a recurrent layer, from and into the states of their slots."""
        return self._states.recur(layer, hidden, rows)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Store this pass's keys and values, attend, and return (1, T, heads, dim)."""
        keys, values = self.pool.store(layer, self.slots, self.positions, key, value)
        query = query[0].transpose(0, 1)  # (T, heads, dim)
        parts = [self._decode(run, query[run.turns], keys, values, scaling) for run in self.runs]
        if self.prefill:
            attend = self._one_by_one if self.apart else self._padded
            parts += attend(query, keys, values, scaling)
        return torch.cat(parts)[None]

    def _decode(self, run: _Run, query: Tensor, keys: Tensor, values: Tensor, scaling: float | None) -> Tensor:
        """Outputs (turns, heads, dim); the query heads that share a key head are queries of one attention."""
        heads, width = query.shape[1:]
        q = query.reshape(len(query), keys.shape[1], -1, width)
        if run.rows is not None:
            q = q.new_zeros(run.stop - run.first, *q.shape[1:]).index_copy_(0, run.rows, q)
        reach = run.mask.shape[-1]
        k, v = keys[run.first : run.stop, :, :reach], values[run.first : run.stop, :, :reach]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=run.mask, scale=scaling)
        if run.rows is not None:
            out = out[run.rows]
        return out.reshape(-1, heads, width)

    def _one_by_one(self, query: Tensor, keys: Tensor, values: Tensor, scaling: float | None) -> list[Tensor]:
        """Outputs (count, heads, dim) of every span of prefill."""
        outputs, place = [], self.num_decode
        for span, mask in zip(self.prefill, self.causal_masks, strict=True):
            q = query[place : place + span.count].transpose(0, 1)[None]
            end = span.start + span.count
            k, v = keys[span.slot, None, :, :end], values[span.slot, None, :, :end]
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling, enable_gqa=True)
            outputs.append(out[0].transpose(0, 1))
            place += span.count
        return outputs

    def _padded(self, query: Tensor, keys: Tensor, values: Tensor, scaling: float | None) -> list[Tensor]:
        """The output (tokens, heads, dim) of all spans of prefill, padded to the longest."""
        shared = query.shape[1] // keys.shape[1]
        q = query[self.prefill_index].transpose(1, 2)
        k = keys[self.prefill_slots, :, : self.prefill_reach].repeat_interleave(shared, dim=1)
        v = values[self.prefill_slots, :, : self.prefill_reach].repeat_interleave(shared, dim=1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.prefill_mask, scale=scaling)
        return [out.transpose(1, 2).flatten(0, 1)[self.prefill_places]]


def _ends_of_neighbours(spans: Sequence[Span]) -> list[int]:
    """Where runs of spans in neighbouring slots end: slots 0, 1, 4, 6, 7 give 2, 3, 5."""
    after = [*(span.slot for span in spans[1:]), None]
    return [place + 1 for place, span in enumerate(spans) if after[place] != span.slot + 1]
