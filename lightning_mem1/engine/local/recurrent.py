"""States of recurrent layers for the slots of a pool: what a slot holds of them, and where turns may start from.

Keys of any beginning of a context can be used again. A state stands for exactly the tokens that made it. So a slot has
two: the one after its last token, and one that was saved on the way, at the end of its prompt. Turns of a group start
from the saved one of another slot, and a turn that drops what came after the prompt from its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from lightning_mem1.policy.recurrent import LayerStates, Rows, in_rows
from lightning_mem1.policy.recurrent_rows import RowGroup, RowPlan, binary_parts, equally_long, row_plan

KINDS = ("conv_states", "recurrent_states")


class Span(Protocol):
    """Tokens to run, as `slots.Span`: positions start .. start + count of a slot.

    Attributes:
        saves: Length at which the slot's state is saved on the way; None for nowhere.
    """

    @property
    def slot(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def saves(self) -> int | None: ...


class StatePool:
    """States of every recurrent layer for `num_slots` contexts: current ones first, then saved ones.

    Memory is taken when a layer first leaves a state, whose shape is its own affair; it does not grow afterwards.

    Attributes:
        saved: By slot, how many of its tokens the saved state stands for; 0 for none.
    """

    def __init__(self, num_slots: int, device: torch.device) -> None:
        self.num_slots, self.device = num_slots, device
        self.saved = [0] * num_slots
        self._layers: dict[int, LayerStates] = {}

    @property
    def num_bytes(self) -> int:
        """Bytes that the pool holds."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors())

    def forget(self) -> None:
        """No saved state is to be used again."""
        self.saved = [0] * self.num_slots

    def reach(self, slot: int, held: Sequence[int], ids: Sequence[int], running: bool = False) -> int:
        """Tokens of a context `ids` that a slot has a state for, at most all but the last, which has to run.

        Args:
            slot: The slot.
            held: The ids it holds.
            ids: The context.
            running: Its current state will have moved before it could be copied.
        """
        found = [self.saved[slot]] if running else [self.saved[slot], len(held)]
        return max((n for n in found if n < len(ids) and list(held[:n]) == list(ids[:n])), default=0)

    def begin(self, slot: int, donor: int, known: int, held: int) -> None:
        """Make a slot's current state that of `known` tokens, out of what a donor (or itself) has.

        Args:
            slot: Where a turn starts.
            donor: The slot that `reach` was asked about.
            known: What it answered.
            held: How many ids the donor holds.
        """
        if not known:
            self.saved[slot] = 0
            return
        is_saved = self.saved[donor] == known
        source = donor + self.num_slots if is_saved else donor
        targets = [slot, slot + self.num_slots] if donor != slot else [slot] if is_saved else []
        for tensor in self._tensors():
            for target in targets:
                tensor[target] = tensor[source]
        if donor != slot:
            self.saved[slot] = known

    def save_at(self, slot: int, ids: Sequence[int], known: int, stable: int) -> int | None:
        """Where a turn that starts should save its state, if its slot has none of use.

        Args:
            slot: Where it starts, after `begin`.
            ids: Its context.
            known: Tokens it does not run.
            stable: How many of its first ids the slot's last turn had as well.
        """
        if 0 < self.saved[slot] <= min(known, stable):
            return None
        last = len(ids) - 1  # others may start from the whole context, whose last token has to run
        where = stable if known < stable < last else last
        self.saved[slot] = where if where > known else 0
        return self.saved[slot] or None

    def clear(self, slots: Iterable[int]) -> None:
        """Current states of slots whose contexts start from nothing."""
        rows = list(slots)
        index = torch.tensor(rows).to(self.device, non_blocking=True)
        for tensor in self._tensors() if rows else ():
            tensor.index_fill_(0, index, 0)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Around steps that are tried: afterwards states are as before, in the same memory."""
        before = [tensor.clone() for tensor in self._tensors()]
        yield
        for tensor, kept in zip(self._tensors(), before, strict=True):
            tensor.copy_(kept)

    def store(self, layer: int) -> _LayerStore:
        """What `in_rows` reads and writes for a layer."""
        return _LayerStore(self, layer)

    def step(self, layer: int, hidden: Tensor, rows: Rows, active: Tensor) -> Tensor:
        """One token of every slot (1, slots, width) in fixed shapes; slots that are not active keep their states."""
        kept = self._layers[layer].map(lambda tensor: tensor[: self.num_slots])
        states = kept.map(torch.clone)
        out = rows(hidden[0, :, None], states)
        for kind in KINDS:
            for number, tensor in getattr(kept, kind).items():
                moved = getattr(states, kind)[number].to(tensor.dtype)
                tensor.copy_(torch.where(active.view(-1, *[1] * (tensor.dim() - 1)), moved, tensor))
        return out[None, :, 0]

    def read(self, layer: int, rows: Tensor) -> LayerStates:
        """Copies of the states of some rows; empty before there are any."""
        kept = self._layers.get(layer)
        return LayerStates() if kept is None else kept.map(lambda tensor: tensor.index_select(0, rows))

    def write(self, layer: int, rows: Tensor, states: LayerStates) -> None:
        """Keep the states of some rows."""
        if layer not in self._layers:
            self._layers[layer] = states.map(lambda state: state.new_zeros(2 * self.num_slots, *state.shape[1:]))
        for kind in KINDS:
            for number, state in getattr(states, kind).items():
                tensor = getattr(self._layers[layer], kind)[number]
                tensor.index_copy_(0, rows, state.to(tensor.dtype))

    def _tensors(self) -> list[Tensor]:
        return [tensor for layer in self._layers.values() for kind in KINDS for tensor in getattr(layer, kind).values()]


class _LayerStore:
    """The part of a pool that belongs to a layer; see `policy.recurrent.StateStore`."""

    def __init__(self, pool: StatePool, layer: int) -> None:
        self._pool, self._layer = pool, layer

    def read(self, group: RowGroup) -> LayerStates:
        assert group.reads is not None
        return self._pool.read(self._layer, group.reads)

    def write(self, group: RowGroup, states: LayerStates) -> None:
        assert group.writes is not None
        kept = group.kept
        if kept is not None:
            states = states.map(lambda state: state.index_select(0, kept))
        self._pool.write(self._layer, group.writes, states)


class PassStates:
    """The recurrent layers of one forward pass: single tokens of running slots, then the spans of starting ones."""

    def __init__(self, pool: StatePool, decode: Sequence[Span], prefill: Sequence[Span]) -> None:
        self._pool = pool
        pool.clear(span.slot for span in prefill if span.start == 0)
        self._plan = _span_rows(decode, prefill, pool.num_slots, pool.device)

    def recur(self, layer: int, hidden: Tensor, rows: Rows) -> Tensor:
        """See `policy.recurrent.SlotStates`."""
        return in_rows(hidden, self._plan, rows, self._pool.store(layer))


def _span_rows(decode: Sequence[Span], prefill: Sequence[Span], num_slots: int, device: torch.device) -> RowPlan:
    groups = []
    if decode:
        slots = torch.tensor([span.slot for span in decode])
        groups.append(RowGroup(torch.arange(len(decode))[:, None], reads=slots, writes=slots))
    first, later = [], []
    place = len(decode)
    for span in prefill:
        before = span.count if span.saves is None else span.saves - span.start
        first.append(_Part(span.slot, place, before, saves=span.saves is not None))
        if before < span.count:
            later.append(_Part(span.slot, place + before, span.count - before))
        place += span.count
    for parts in (first, later):
        groups += [_group(each, num_slots) for each in _together(parts)]
    return row_plan(groups, device)


class _Part:
    """Tokens start .. start + count of a packed row, which continue a slot's state."""

    def __init__(self, slot: int, start: int, count: int, saves: bool = False) -> None:
        self.slot, self.start, self.count, self.saves = slot, start, count, saves


def _together(parts: Sequence[_Part]) -> list[list[_Part]]:
    """Parts as groups of one length each, so that nothing is padded and every state is that after the last token.

    Many parts of unlike lengths are cut further, into powers of two: ten groups hold any number of parts below 1024
    tokens.
    """
    lengths = {part.count for part in parts}
    if len(lengths) > max(lengths, default=0).bit_length():
        parts = [piece for part in parts for piece in _pieces(part)]
    order = sorted(range(len(parts)), key=lambda number: -parts[number].count)
    groups = equally_long(order, [parts[number].count for number in order])
    return [[parts[number] for number in group] for group in groups]


def _pieces(part: _Part) -> list[_Part]:
    start, pieces = part.start, []
    for count in binary_parts(part.count):
        pieces.append(_Part(part.slot, start, count))
        start += count
    pieces[-1].saves = part.saves
    return pieces


def _group(parts: Sequence[_Part], num_slots: int) -> RowGroup:
    index = torch.tensor([[part.start] for part in parts]) + torch.arange(parts[0].count)
    slots = torch.tensor([part.slot for part in parts])
    saving = [number for number, part in enumerate(parts) if part.saves]
    if not saving:
        return RowGroup(index, reads=slots, writes=slots)
    kept = torch.tensor([*range(len(parts)), *saving])
    return RowGroup(index, reads=slots, writes=torch.cat([slots, slots[saving] + num_slots]), kept=kept)
