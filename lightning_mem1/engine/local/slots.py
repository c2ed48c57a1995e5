"""A fixed pool of key-value slots: what the local engine attends over.

The pool is allocated once. Its size depends on the number of slots and on the longest context, not on how many turns
an episode has, and memory mode `mem1` bounds the longest context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mem1.engine.local.recurrent import PassStates, StatePool
from lightning_mem1.policy.attention import AttentionLayer
from lightning_mem1.policy.recurrent import Rows
from lightning_mem1.policy.scores import EVERYTHING, PositionRule, Scores, attend


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
        layers: The model's layers that attend, see `policy.architecture`.
        num_slots: Contexts held at once.
        max_tokens: Longest context, generated tokens included.
        dtype: Of the keys and values.
        device: Where they are.
    """

    def __init__(
        self,
        layers: Sequence[AttentionLayer],
        num_slots: int,
        max_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.num_slots, self.max_tokens, self.dtype, self.device = num_slots, max_tokens, dtype, device
        self.rules = {layer.rule for layer in layers}
        shapes = [
            ((layer.num_key_heads, layer.key_width), (layer.num_key_heads, layer.value_width)) for layer in layers
        ]
        self._stacks: list[Tensor] = []  # layers of one shape together, so that a slot is copied in few calls
        self.keys: list[Tensor] = [torch.empty(0)] * len(layers)  # by layer: (slots, heads, tokens, width)
        self.values = list(self.keys)
        for shape in dict.fromkeys(shapes):
            alike = [number for number, each in enumerate(shapes) if each == shape]
            for kept, (heads, width) in zip((self.keys, self.values), shape, strict=True):
                stack = torch.zeros(len(alike), num_slots, heads, max_tokens, width, dtype=dtype, device=device)
                self._stacks.append(stack)
                for number, part in zip(alike, stack, strict=True):
                    kept[number] = part
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
        for pool in self._stacks:
            pool[:, target, :, :count] = pool[:, source, :, :count]

    @property
    def num_bytes(self) -> int:
        """Bytes that the pool holds, whatever the horizon."""
        return sum(stack.numel() * stack.element_size() for stack in self._stacks) + self.states.num_bytes


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
    `last` (slots,) the positions of their new tokens.
    """

    first: int
    stop: int
    turns: slice
    rows: Tensor | None
    last: Tensor
    reach: int


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
        device = pool.device
        self._masks: dict[Any, Tensor] = {}
        spans = [*decode, *prefill]
        self.slots = torch.tensor([s.slot for s in spans for _ in range(s.count)], device=device)
        self.positions = torch.tensor([s.start + i for s in spans for i in range(s.count)], device=device)
        self.apart = device.type == "cpu" if apart is None else apart
        ends = _ends_of_neighbours(decode) if self.apart else [len(decode)] if decode else []
        self.runs = [self._run(decode, slice(start, end)) for start, end in zip([0, *ends], ends, strict=False)]
        if not self.apart:
            self._plan_padded(prefill, device)

    def _run(self, decode: Sequence[Span], turns: slice) -> _Run:
        spans = decode[turns]
        first, stop = spans[0].slot, spans[-1].slot + 1
        last = torch.zeros(stop - first, dtype=torch.long, device=self.pool.device)
        rows = self.slots[turns] - first
        last[rows] = self.positions[turns]
        reach = max(span.start for span in spans) + 1
        return _Run(first, stop, turns, None if len(spans) == len(last) else rows, last, reach)

    def _decode_mask(self, run: _Run, rule: PositionRule) -> Tensor:
        """(slots, 1, 1, reach): minus infinity on the keys that a new token does not see."""
        if (rule, run.first) not in self._masks:
            reach = torch.arange(run.reach, device=self.pool.device)
            mask = torch.zeros(len(run.last), run.reach, dtype=self.pool.dtype, device=self.pool.device)
            mask.masked_fill_(reach > run.last[:, None], -torch.inf)
            if rule != EVERYTHING:
                mask.masked_fill_(~rule.sees(run.last[:, None], reach), -torch.inf)
            self._masks[rule, run.first] = mask[:, None, None]
        return self._masks[rule, run.first]

    def _span_mask(self, span: Span, rule: PositionRule) -> Tensor:
        """(count, start + count): minus infinity on the keys that a query does not see, such as those after it."""
        if (rule, span) not in self._masks:
            end = span.start + span.count
            mask = torch.full((span.count, end), -torch.inf, dtype=self.pool.dtype, device=self.pool.device)
            mask.triu_(span.start + 1)
            if rule != EVERYTHING:
                places = torch.arange(end, device=self.pool.device)
                mask.masked_fill_(~rule.sees(places[span.start :, None], places), -torch.inf)
            self._masks[rule, span] = mask
        return self._masks[rule, span]

    def _padded_mask(self, rule: PositionRule) -> Tensor:
        """(spans, 1, width, reach): True where a query sees a key."""
        if rule not in self._masks:
            reach = torch.arange(self.prefill_reach, device=self.pool.device)
            mask = reach <= self.prefill_positions[..., None]
            if rule != EVERYTHING:
                mask &= rule.sees(self.prefill_positions[..., None], reach)
            self._masks[rule] = mask[:, None]
        return self._masks[rule]

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
        self.prefill_reach = max(span.start + span.count for span in prefill)
        self.prefill_positions = starts + steps

    @cached_property
    def _states(self) -> PassStates:
        return PassStates(self.pool.states, self.decode, self.prefill)

    def recur(self, layer: int, hidden: Tensor, rows: Rows) -> Tensor:
        """Run this pass's tokens (1, T, width) through a recurrent layer, from and into the states of their slots."""
        return self._states.recur(layer, hidden, rows)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        """Store this pass's keys and values, attend, and return (1, T, heads, dim)."""
        keys, values = self.pool.store(layer, self.slots, self.positions, key, value)
        query = query[0].transpose(0, 1)  # (T, heads, dim)
        parts = [self._decode(run, query[run.turns], keys, values, scores) for run in self.runs]
        if self.prefill:
            together = self._one_by_one if self.apart else self._padded
            parts += together(query, keys, values, scores)
        return torch.cat(parts)[None]

    def _decode(self, run: _Run, query: Tensor, keys: Tensor, values: Tensor, scores: Scores) -> Tensor:
        """Outputs (turns, heads, dim) of new tokens."""
        rows = query
        if run.rows is not None:
            rows = query.new_zeros(run.stop - run.first, *query.shape[1:]).index_copy_(0, run.rows, query)
        k, v = keys[run.first : run.stop, :, : run.reach], values[run.first : run.stop, :, : run.reach]
        out = attend_once(rows, k, v, self._decode_mask(run, scores.rule), scores)
        return out if run.rows is None else out[run.rows]

    def _one_by_one(self, query: Tensor, keys: Tensor, values: Tensor, scores: Scores) -> list[Tensor]:
        """Outputs (count, heads, dim) of every span of prefill."""
        outputs, place = [], self.num_decode
        for span in self.prefill:
            q = query[place : place + span.count].transpose(0, 1)[None]
            end = span.start + span.count
            k, v = keys[span.slot, None, :, :end], values[span.slot, None, :, :end]
            mask = self._span_mask(span, scores.rule)
            if scores.written_out:
                out = attend(q, k, v, mask[None, None], scores)
            else:
                out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scores.scaling, enable_gqa=True)
            outputs.append(out[0].transpose(0, 1))
            place += span.count
        return outputs

    def _padded(self, query: Tensor, keys: Tensor, values: Tensor, scores: Scores) -> list[Tensor]:
        """The output (tokens, heads, dim) of all spans of prefill, padded to the longest."""
        q = query[self.prefill_index].transpose(1, 2)
        k, v = (each[self.prefill_slots, :, : self.prefill_reach] for each in (keys, values))
        mask = self._padded_mask(scores.rule)
        if scores.written_out:
            out = attend(q, k, v, mask, scores)
        else:
            shared = query.shape[1] // keys.shape[1]
            k, v = (each.repeat_interleave(shared, dim=1) for each in (k, v))
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scores.scaling)
        return [out.transpose(1, 2).flatten(0, 1)[self.prefill_places]]


def attend_once(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scores: Scores) -> Tensor:
    """Attention of one new token per slot.

    Args:
        query: (slots, heads, dim).
        keys: (slots, heads_kv, reach, dim).
        values: Likewise, of their own width.
        mask: (slots, 1, 1, reach), added to the scores.
        scores: Of the layer.

    Returns:
        (slots, heads, width of the values).
    """
    if scores.written_out:
        return attend(query[:, :, None], keys, values, mask, scores)[:, :, 0]
    q = query.unflatten(1, (keys.shape[1], -1))  # the heads that share a key head are queries of one attention
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=scores.scaling).flatten(1, 2)


def _ends_of_neighbours(spans: Sequence[Span]) -> list[int]:
    """Where runs of spans in neighbouring slots end: slots 0, 1, 4, 6, 7 give 2, 3, 5."""
    after = [*(span.slot for span in spans[1:]), None]
    return [place + 1 for place, span in enumerate(spans) if after[place] != span.slot + 1]
