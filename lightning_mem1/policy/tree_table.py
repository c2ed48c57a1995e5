"""The segment table of a packed row: which token sees which, without ever writing it as a dense matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import accumulate, chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_mem1.policy.blocks import Block, above, place_index
from lightning_mem1.policy.recurrent_rows import RowPlan, segment_rows
from lightning_mem1.policy.scores import EVERYTHING, PositionRule

TILE = 128  # FlexAttention's tile of queries and keys
PADDING_LIMIT = 0.75  # a bucket takes segments down to this fraction of its longest, so little is padded


@dataclass(frozen=True)
class Bucket:
    """Blocks of similar length, attended in one batched call.

    Attributes:
        query_index: (n, S) positions of the queries in the packed row; padding repeats position 0.
        key_index: (n, K) positions of the keys: the tokens of what the block hangs on, then the block's own.
        mask: (n, 1, S, K) True where a query sees a key.
        places: (N,) where the queries stand among the n * S, padding left out. Found once: a mask would have to be
            looked at in every layer, for which a GPU waits.
    """

    query_index: Tensor
    key_index: Tensor
    mask: Tensor
    places: Tensor

    @cached_property
    def added(self) -> Tensor:
        """The mask as float32 numbers that are added to scores, made once for all layers."""
        return torch.zeros(self.mask.shape, device=self.mask.device).masked_fill_(~self.mask, -torch.inf)


@dataclass(frozen=True)
class TreeTable:
    """Which token of a packed row sees which, without ever writing it as a dense matrix.

    What a kernel takes it as (`buckets`, `sequences`, `block_mask`) is made once for all layers, when it is asked for.

    Attributes:
        own: (T,) number of the block that each token belongs to.
        first, last: (T,) of that block, and of the last of the blocks that hang on it, the place in the order in which
            each block comes before those that hang on it, and those together: a block hangs on another, or is it, where
            its `first` is from the other's `first` to its `last`.
        blocks: What the table was built from.
    """

    own: Tensor
    first: Tensor
    last: Tensor
    blocks: Sequence[Block]
    _made: dict[Any, Any] = field(init=False, default_factory=dict, repr=False, compare=False)

    def to(self, device: torch.device | str) -> TreeTable:
        """The same table on another device."""
        return replace(self, own=self.own.to(device), first=self.first.to(device), last=self.last.to(device))

    @property
    def buckets(self) -> list[Bucket]:
        """The batched form where a token sees all before it."""
        return self.buckets_under(EVERYTHING)

    def buckets_under(self, rule: PositionRule) -> list[Bucket]:
        """The batched form, for `segment_attention`; made once for each rule."""
        if ("buckets", rule) not in self._made:
            made = [_bucket([self.blocks[i] for i in group], self.blocks, rule) for group in _similar(self.blocks)]
            device = self.own.device
            self._made["buckets", rule] = [Bucket(*(getattr(b, f.name).to(device) for f in fields(b))) for b in made]
        found: list[Bucket] = self._made["buckets", rule]
        return found

    @cached_property
    def positions(self) -> Tensor:
        """(T,) the position of each token in its context: a segment's continue from the end of what it hangs on."""
        starts = [sum(each.length for each in above(block, self.blocks)) for block in self.blocks]
        runs = [torch.arange(block.length) + start for block, start in zip(self.blocks, starts, strict=True)]
        return torch.cat(runs).to(self.own.device)

    @cached_property
    def restore(self) -> Tensor:
        """(T,) the place of each token's output in the concatenated bucket outputs."""
        order = torch.cat([bucket.query_index.flatten()[bucket.places] for bucket in self.buckets])
        return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))

    @cached_property
    def state_rows(self) -> RowPlan:
        """For recurrent layers: the rows in which a packed row runs through them."""
        return segment_rows(self.blocks, self.own.device)

    @cached_property
    def sequences(self) -> tuple[Tensor, Tensor, Tensor, int, int]:
        """For FlashAttention: positions of all keys (K,), where queries and keys end (n + 1,), the longest of both."""
        blocks = [block for block in self.blocks if block.length]
        runs = [place_index([*above(block, self.blocks), block]) for block in blocks]
        queries, keys = [block.length for block in blocks], [len(run) for run in runs]
        ends = [torch.tensor([0, *accumulate(lengths)], dtype=torch.int32) for lengths in (queries, keys)]
        index, ends_q, ends_k = (each.to(self.own.device) for each in (torch.cat(runs), *ends))
        return index, ends_q, ends_k, max(queries), max(keys)

    @property
    def block_mask(self) -> Any:
        """FlexAttention's BlockMask where a token sees all before it."""
        return self.block_mask_under(EVERYTHING)

    def block_mask_under(self, rule: PositionRule) -> Any:
        """FlexAttention's BlockMask, from the blocks alone; made once for each rule.

        torch's own `create_block_mask` evaluates the mask for every pair of tokens first, which is the dense matrix
        that the layout is there to avoid; here only pairs of 128-token tiles that can see each other are listed.
        """
        if ("block_mask", rule) not in self._made:
            self._made["block_mask", rule] = self._block_mask(rule)
        return self._made["block_mask", rule]

    def _block_mask(self, rule: PositionRule) -> Any:
        from torch.nn.attention.flex_attention import BlockMask

        tiles = visible_tiles(self.blocks)
        width = max(map(len, tiles))
        counts = torch.tensor([len(row) for row in tiles], dtype=torch.int32)
        indices = torch.tensor([[*row, *([0] * (width - len(row)))] for row in tiles], dtype=torch.int32)
        indices = torch.nn.functional.pad(indices, (0, len(tiles) - width))
        device, size = self.own.device, len(self.own)
        positions = self.positions  # looked up here: a compiler cannot follow what is made at the first look

        def sees(batch: Any, head: Any, query: Tensor, key: Tensor) -> Tensor:
            seen = self.visible(query, key)
            return seen if rule == EVERYTHING else seen & rule.sees(positions[query], positions[key])

        return BlockMask.from_kv_blocks(
            counts[None, None].to(device),
            indices[None, None].to(device),
            BLOCK_SIZE=TILE,
            mask_mod=sees,
            seq_lengths=(size, size),
        )

    def visible(self, query: Tensor, key: Tensor, rule: PositionRule = EVERYTHING) -> Tensor:
        """True where token `query` sees token `key` (any broadcastable index tensors); also FlexAttention's rule.

        A prompt of two tokens and the segments of two turns read::

            P 1 . . . . .
            P 1 1 . . . .
            a 1 1 1 . . .
            a 1 1 1 1 . .
            b 1 1 . . 1 .
            b 1 1 . . 1 1
        """
        number = self.first[query]
        seen = (self.first[key] <= number) & (number <= self.last[key]) & (query >= key)
        return seen if rule == EVERYTHING else seen & rule.sees(self.positions[query], self.positions[key])


def tree_table(blocks: Sequence[Block]) -> TreeTable:
    """Build the table of a packed row from its blocks, which must tile the row in order, roots before leaves."""
    counts, (first, last) = torch.tensor([block.length for block in blocks]), map(torch.tensor, _nested(blocks))
    own, first, last = (each.repeat_interleave(counts) for each in (torch.arange(len(blocks)), first, last))
    return TreeTable(own, first, last, tuple(blocks))


def _nested(blocks: Sequence[Block]) -> tuple[list[int], list[int]]:
    """By block `first` and `last` of a `TreeTable`.

    Of a prompt 0 with the segments 2 and 3, and a prompt 1::

        first   0 3 1 2
        last    2 3 1 2
    """
    sizes = [1] * len(blocks)  # of the block and all that hang on it
    for number in reversed(range(len(blocks))):
        if (root := blocks[number].root) is not None:
            sizes[root] += sizes[number]
    first, room, free = [0] * len(blocks), [0] * len(blocks), 0  # room: the next place behind a block
    for number, block in enumerate(blocks):
        if block.root is None:
            first[number], free = free, free + sizes[number]
        else:
            first[number], room[block.root] = room[block.root], room[block.root] + sizes[number]
        room[number] = first[number] + 1
    return first, [start + size - 1 for start, size in zip(first, sizes, strict=True)]


def _similar(blocks: Sequence[Block]) -> list[list[int]]:
    """Indices of blocks grouped so that padding stays below 1 - PADDING_LIMIT; empty blocks are left out."""
    order = sorted((i for i, b in enumerate(blocks) if b.length), key=lambda i: -blocks[i].length)
    groups: list[list[int]] = []
    for i in order:
        if groups and _fits(blocks[i], blocks[groups[-1][0]]):
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _fits(block: Block, longest: Block) -> bool:
    return (block.root is None) == (longest.root is None) and block.length >= PADDING_LIMIT * longest.length


def _bucket(group: Sequence[Block], blocks: Sequence[Block], rule: PositionRule) -> Bucket:
    roots = [place_index(above(block, blocks)) for block in group]
    offsets = torch.tensor([[len(root)] for root in roots])  # position of a block's first token
    roots = [_seen_part(root, rule) for root in roots]
    starts, lengths = _column(group, "start"), _column(group, "length")
    root_lengths = torch.tensor([[len(root)] for root in roots])
    step = torch.arange(int(lengths.max()))
    root_step = torch.arange(int(root_lengths.max()))
    valid, root_valid = step < lengths, root_step < root_lengths
    query_index = torch.where(valid, starts + step, 0)
    key_index = torch.cat([pad_sequence(roots, batch_first=True), query_index], dim=1)
    causal = step[:, None] >= step[None, :]
    sees_root = root_valid[:, None, :].expand(-1, len(step), -1)
    # padded queries keep their own diagonal, so that no softmax row is empty (their output is dropped)
    mask = torch.cat([sees_root, causal.expand(len(group), -1, -1)], dim=2)
    if rule != EVERYTHING:
        queries = offsets + step
        keys = torch.cat([offsets - root_lengths + root_step, queries], dim=1)
        mask = mask & rule.sees(queries[:, :, None], keys[:, None])
    return Bucket(query_index, key_index, mask[:, None], valid.flatten().nonzero()[:, 0])


def _seen_part(root: Tensor, rule: PositionRule) -> Tensor:
    """The end of a prompt that the tokens behind it see; what none of them sees costs nothing."""
    return root[min(len(root), rule.first_seen(len(root))) :]


def _column(blocks: Sequence[Block], name: str) -> Tensor:
    return torch.tensor([[getattr(block, name)] for block in blocks])


def visible_tiles(blocks: Sequence[Block]) -> list[list[int]]:
    """For each tile of `TILE` queries, the tiles of keys that any of its tokens may see, in order."""
    size = blocks[-1].start + blocks[-1].length
    tiles: list[set[int]] = [set() for _ in range(-(-size // TILE))]
    for block in blocks:
        if not block.length:
            continue
        own = _tiles_of(block)
        seen = set(chain.from_iterable(_tiles_of(each) for each in above(block, blocks) if each.length))
        for tile in own:
            tiles[tile] |= seen
            tiles[tile].update(range(own.start, tile + 1))
    return [sorted(row) for row in tiles]


def _tiles_of(block: Block) -> range:
    return range(block.start // TILE, (block.start + block.length - 1) // TILE + 1)
