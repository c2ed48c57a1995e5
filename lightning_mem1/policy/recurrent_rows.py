"""Rows for layers that keep a state: which tokens of a packed row run together, and where their states are.

Attention finds the tokens that a token sees by a mask. A recurrent layer (gated delta rule, short convolution, state
space) reads its tokens one after the other, so those of one context have to be a row of their own: prompts first, then
the segments that hang on them, each from the state that its prompt left. Where segments hang on segments, every context
is a row from its first token on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from lightning_mem1.policy.blocks import Block, above, place_index

PADDING_LIMIT = 0.75  # a group takes segments down to this fraction of its longest, so little is padded
SHORTEST = 2  # tokens of a segment's row: one alone would run as in decoding, which overwrites the state it starts from


@dataclass(frozen=True)
class RowGroup:
    """Rows that go through a recurrent layer in one call.

    Attributes:
        index: (n, S) positions of their tokens in the packed row; a shorter row repeats its last token.
        reads: (n,) numbers of the states that the rows start from; None for an empty state.
        writes: (m,) numbers under which states are kept afterwards; None for nobody continues these rows.
        kept: (m,) the row whose state each number gets; None for each row's, in order.
        places: (N,) where the tokens are among the n * S, padding left out; None where nothing is padded.
    """

    index: Tensor
    reads: Tensor | None = None
    writes: Tensor | None = None
    kept: Tensor | None = None
    places: Tensor | None = None

    def to(self, device: torch.device | str) -> RowGroup:
        """The same group on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in values.items() if value is not None})


@dataclass(frozen=True)
class RowPlan:
    """All rows of a packed row, in the order in which they run.

    Attributes:
        groups: What runs in one call each.
        restore: (T,) where each token's output is in the outputs of all groups, one after the other.
    """

    groups: Sequence[RowGroup]
    restore: Tensor


def row_plan(groups: Sequence[RowGroup], device: torch.device | str) -> RowPlan:
    """The plan of groups that hold every token once."""
    flat = [group.index.flatten() for group in groups]
    order = torch.cat(
        [each if group.places is None else each[group.places] for group, each in zip(groups, flat, strict=True)]
    )
    restore = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
    return RowPlan([group.to(device) for group in groups], restore.to(device))


def segment_rows(blocks: Sequence[Block], device: torch.device | str) -> RowPlan:
    """The rows of a segment table: prompts, then segments; whole contexts where segments hang on segments.

    Prompts of one length run together, so that none is padded and their states are those after their last token.
    Segments are padded at their end, where it changes nothing: no row continues them.
    """
    if any(len(above(block, blocks)) > 1 for block in blocks):
        return _context_rows(blocks, device)
    prompts = [number for number, block in enumerate(blocks) if block.root is None and block.length]
    segments = [number for number, block in enumerate(blocks) if block.root is not None and block.length]
    groups: list[RowGroup] = []
    state: dict[int | None, int] = {}
    for group in equally_long(prompts, [blocks[number].length for number in prompts]):
        before = len(state)
        state |= {number: before + place for place, number in enumerate(group)}
        writes = torch.arange(before, len(state))
        groups.append(RowGroup(_index([blocks[number] for number in group]), writes=writes))
    for group in _similar(segments, blocks):
        rows = [blocks[number] for number in group]
        reads = torch.tensor([state[row.root] for row in rows])
        groups.append(_padded(rows, reads))
    return row_plan(groups, device)


def _context_rows(blocks: Sequence[Block], device: torch.device | str) -> RowPlan:
    """A row for each context, from an empty state; a token's output is taken from the first row that holds it."""
    ends = {*range(len(blocks))} - {block.root for block in blocks}
    rows = [[*above(blocks[number], blocks), blocks[number]] for number in sorted(ends)]
    places = [place_index(row) for row in rows]
    groups, taken = [], torch.zeros(sum(block.length for block in blocks), dtype=torch.bool)
    for group in _similar(range(len(rows)), [Block(0, len(each)) for each in places]):
        width = max(SHORTEST, *(len(places[number]) for number in group))
        index, fresh = [], []
        for number in group:
            row = places[number]
            index.append(torch.cat([row, row[-1:].expand(width - len(row))]))
            fresh.append(torch.cat([~taken[row], torch.zeros(width - len(row), dtype=torch.bool)]))
            taken[row] = True
        groups.append(RowGroup(torch.stack(index), places=torch.cat(fresh).nonzero()[:, 0]))
    return row_plan(groups, device)


def equally_long(numbers: Iterable[int], lengths: Iterable[int]) -> list[list[int]]:
    """Numbers whose lengths are equal, together.

    >>> equally_long([4, 5, 6], [9, 2, 9])
    [[4, 6], [5]]
    """
    groups: dict[int, list[int]] = {}
    for number, length in zip(numbers, lengths, strict=True):
        groups.setdefault(length, []).append(number)
    return list(groups.values())


def binary_parts(length: int) -> list[int]:
    """A length as a sum of powers of two, the largest first: rows of many lengths share few lengths of parts.

    >>> binary_parts(300)
    [256, 32, 8, 4]
    """
    return [1 << bit for bit in reversed(range(length.bit_length())) if length >> bit & 1]


def _similar(numbers: Sequence[int], blocks: Sequence[Block]) -> list[list[int]]:
    """Numbers of blocks in groups whose shortest is no shorter than `PADDING_LIMIT` of their longest."""
    groups: list[list[int]] = []
    for number in sorted(numbers, key=lambda number: -blocks[number].length):
        if groups and blocks[number].length >= PADDING_LIMIT * blocks[groups[-1][0]].length:
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups


def _index(rows: Sequence[Block]) -> Tensor:
    starts = torch.tensor([[row.start] for row in rows])
    return starts + torch.arange(rows[0].length)


def _padded(rows: Sequence[Block], reads: Tensor) -> RowGroup:
    lengths = [row.length for row in rows]
    steps = torch.arange(max(SHORTEST, *lengths))
    index = torch.stack([row.start + steps.clamp(max=row.length - 1) for row in rows])
    if set(lengths) == {len(steps)}:
        return RowGroup(index, reads)
    valid = steps < torch.tensor(lengths)[:, None]
    return RowGroup(index, reads, places=valid.flatten().nonzero()[:, 0])
