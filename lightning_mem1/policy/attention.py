"""One attention function for training and rollout, registered with transformers under the name `NAME`.

It looks at the extra keyword arguments of `model(...)`: with ``tree=`` it attends along a segment table (training),
with ``slots=`` it attends over an engine's key-value pool (rollout), with neither it is ordinary SDPA: causal over
padded rows (layout `rows`), or under a boolean (B, 1, L, L) mask (the inexact layouts, for comparison alone). No path
builds a dense (L, L) mask over a packed row: the largest mask is per segment.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from itertools import accumulate
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mem1.policy.recurrent_rows import RowPlan, segment_rows

NAME = "lightning_mem1"
SIXTEEN_BITS = (torch.bfloat16, torch.float16)
TILE = 128  # FlexAttention's tile of queries and keys
PADDING_LIMIT = 0.75  # a bucket takes segments down to this fraction of its longest, so little is padded


class SlotAttention(Protocol):
    """What an engine hands to `model(...)` as ``slots=``."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Store keys and values (1, heads, T, dim) of a layer and return attention output (1, T, heads, dim)."""
        ...


@dataclass(frozen=True)
class Block:
    """A run of tokens in a packed row; `root` is the index of the block it hangs on, None for a prompt."""

    start: int
    length: int
    root: int | None = None


@dataclass(frozen=True)
class Bucket:
    """Blocks of similar length, attended in one batched call.

    Attributes:
        query_index: (n, S) positions of the queries in the packed row; padding repeats position 0.
        key_index: (n, K) positions of the keys: the root's tokens, then the block's own.
        mask: (n, 1, S, K) True where a query sees a key.
        places: (N,) where the queries stand among the n * S, padding left out. Found once: a mask would have to be
            looked at in every layer, for which a GPU waits.
    """

    query_index: Tensor
    key_index: Tensor
    mask: Tensor
    places: Tensor


@dataclass(frozen=True)
class TreeTable:
    """Which token of a packed row sees which, without ever writing it as a dense matrix.

    What a kernel takes it as (`buckets`, `sequences`, `state_rows`, `block_mask`) is made once for all layers, when it
    is asked for.

    Attributes:
        own: (T,) number of the block that each token belongs to.
        root: (T,) number of the prompt block that each token may see besides its own.
        blocks: What the table was built from.
    """

    own: Tensor
    root: Tensor
    blocks: Sequence[Block]

    def to(self, device: torch.device | str) -> TreeTable:
        """The same table on another device."""
        return replace(self, own=self.own.to(device), root=self.root.to(device))

    @cached_property
    def buckets(self) -> list[Bucket]:
        """The batched form, for `segment_attention`."""
        made = [_bucket([self.blocks[i] for i in group], self.blocks) for group in _similar(self.blocks)]
        device = self.own.device
        return [Bucket(*(getattr(b, field.name).to(device) for field in fields(Bucket))) for b in made]

    @cached_property
    def restore(self) -> Tensor:
        """(T,) where each token's output stands in the concatenated bucket outputs."""
        order = torch.cat([bucket.query_index.flatten()[bucket.places] for bucket in self.buckets])
        return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))

    @cached_property
    def sequences(self) -> tuple[Tensor, Tensor, Tensor, int, int]:
        """For FlashAttention: positions of all keys (K,), where queries and keys end (n + 1,), the longest of both."""
        blocks = [block for block in self.blocks if block.length]
        roots = [Block(0, 0) if block.root is None else self.blocks[block.root] for block in blocks]
        runs = [torch.arange(b.start, b.start + b.length) for pair in zip(roots, blocks, strict=True) for b in pair]
        queries = [block.length for block in blocks]
        keys = [root.length + length for root, length in zip(roots, queries, strict=True)]
        ends = [torch.tensor([0, *accumulate(lengths)], dtype=torch.int32) for lengths in (queries, keys)]
        index, ends_q, ends_k = (each.to(self.own.device) for each in (torch.cat(runs), *ends))
        return index, ends_q, ends_k, max(queries), max(keys)

    @cached_property
    def state_rows(self) -> RowPlan:
        """For recurrent layers: the rows in which a packed row runs through them."""
        return segment_rows(self.blocks, self.own.device)

    @cached_property
    def block_mask(self) -> Any:
        """FlexAttention's BlockMask, from the blocks alone.

        torch's own `create_block_mask` evaluates the mask for every pair of tokens first, which is the dense matrix
        that the layout is there to avoid; here only pairs of 128-token tiles that can see each other are listed.
        """
        from torch.nn.attention.flex_attention import BlockMask

        tiles = visible_tiles(self.blocks)
        width = max(map(len, tiles))
        counts = torch.tensor([len(row) for row in tiles], dtype=torch.int32)
        indices = torch.tensor([[*row, *([0] * (width - len(row)))] for row in tiles], dtype=torch.int32)
        indices = torch.nn.functional.pad(indices, (0, len(tiles) - width))
        device, size = self.own.device, len(self.own)
        return BlockMask.from_kv_blocks(
            counts[None, None].to(device),
            indices[None, None].to(device),
            BLOCK_SIZE=TILE,
            mask_mod=lambda batch, head, q, kv: self.visible(q, kv),
            seq_lengths=(size, size),
        )

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        """True where token `query` sees token `key` (any broadcastable index tensors); also FlexAttention's rule.

        A prompt of two tokens and the segments of two turns read::

            P 1 . . . . .
            P 1 1 . . . .
            a 1 1 1 . . .
            a 1 1 1 1 . .
            b 1 1 . . 1 .
            b 1 1 . . 1 1
        """
        same = (self.own[key] == self.own[query]) | (self.own[key] == self.root[query])
        return same & (query >= key)


def tree_table(blocks: Sequence[Block]) -> TreeTable:
    """Build the table of a packed row from its blocks, which must tile the row in order, roots before leaves."""
    own, root = [], []
    for number, block in enumerate(blocks):
        own += [number] * block.length
        root += [number if block.root is None else block.root] * block.length
    return TreeTable(torch.tensor(own), torch.tensor(root), tuple(blocks))


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


def _bucket(group: Sequence[Block], blocks: Sequence[Block]) -> Bucket:
    empty = Block(0, 0)
    roots = [empty if block.root is None else blocks[block.root] for block in group]
    starts, lengths = _column(group, "start"), _column(group, "length")
    root_starts, root_lengths = _column(roots, "start"), _column(roots, "length")
    step = torch.arange(int(lengths.max()))
    root_step = torch.arange(int(root_lengths.max()))
    valid, root_valid = step < lengths, root_step < root_lengths
    query_index = torch.where(valid, starts + step, 0)
    key_index = torch.cat([torch.where(root_valid, root_starts + root_step, 0), query_index], dim=1)
    causal = step[:, None] >= step[None, :]
    sees_root = root_valid[:, None, :].expand(-1, len(step), -1)
    # padded queries keep their own diagonal, so that no softmax row is empty (their output is dropped)
    mask = torch.cat([sees_root, causal.expand(len(group), -1, -1)], dim=2)
    return Bucket(query_index, key_index, mask[:, None], valid.flatten().nonzero()[:, 0])


def _column(blocks: Sequence[Block], name: str) -> Tensor:
    return torch.tensor([[getattr(block, name)] for block in blocks])


def segment_attention(query: Tensor, key: Tensor, value: Tensor, table: TreeTable, scaling: float | None) -> Tensor:
    """Exact tree attention by batched SDPA over segments, with backward on every device.

    Args:
        query: (1, H, T, D); key and value: (1, H_kv, T, D).

    Returns:
        (1, T, H, D).
    """
    query, key, value = query[0], key[0], value[0]
    repeats = query.shape[0] // key.shape[0]
    outputs = []
    for bucket in table.buckets:
        q = _taken(query, 1, bucket.query_index).transpose(0, 1)
        k = _taken(key, 1, bucket.key_index).transpose(0, 1).repeat_interleave(repeats, dim=1)
        v = _taken(value, 1, bucket.key_index).transpose(0, 1).repeat_interleave(repeats, dim=1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bucket.mask, scale=scaling)
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


def flex_tree_attention(query: Tensor, key: Tensor, value: Tensor, table: TreeTable, scaling: float | None) -> Tensor:
    """The same by FlexAttention with a block mask made from the segment table (CUDA; no backward on CPU)."""
    kernel = _flex_kernel(query.is_cuda)
    out = kernel(query, key, value, block_mask=table.block_mask, scale=scaling, enable_gqa=True)
    return out.transpose(1, 2)


def varlen_tree_attention(query: Tensor, key: Tensor, value: Tensor, table: TreeTable, scaling: float | None) -> Tensor:
    """The same by FlashAttention over blocks of different lengths (CUDA, 16 bits).

    Every block is a sequence of its own, whose keys are its root's and its own; causal attention then lets a query see
    all keys but those behind its own token.
    """
    from torch.nn.attention.varlen import varlen_attn

    if torch.is_autocast_enabled(query.device.type):  # torch knows no rule for this kernel, as it does for SDPA
        query, key, value = (each.to(torch.get_autocast_dtype(query.device.type)) for each in (query, key, value))
    if not query.is_cuda or query.dtype not in SIXTEEN_BITS:
        raise ValueError(
            f"model.attention varlen runs in 16 bits on a GPU, got {query.dtype} on {query.device.type}; set it to auto"
        )
    query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))
    index, ends_q, ends_k, longest_q, longest_k = table.sequences
    key, value = _taken(key, 0, index), _taken(value, 0, index)
    more: dict[str, Any] = {"scale": scaling, "window_size": (-1, 0)}
    if "enable_gqa" in inspect.signature(varlen_attn).parameters:
        more["enable_gqa"] = True
    else:  # torch 2.11
        repeats = query.shape[1] // key.shape[1]
        key, value = (each.repeat_interleave(repeats, dim=1) for each in (key, value))
    out: Any = varlen_attn(query, key, value, ends_q, ends_k, longest_q, longest_k, **more)
    return out[None]  # type: ignore[no-any-return]


@cache
def _flex_kernel(compiled: bool) -> Any:
    """Compiled once per process; `dynamic` keeps it from compiling again for every length of row."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if compiled else flex_attention


def visible_tiles(blocks: Sequence[Block]) -> list[list[int]]:
    """For each tile of `TILE` queries, the tiles of keys that any of its tokens may see, in order."""
    size = blocks[-1].start + blocks[-1].length
    tiles: list[set[int]] = [set() for _ in range(-(-size // TILE))]
    for block in blocks:
        if not block.length:
            continue
        own = _tiles_of(block)
        root = _tiles_of(blocks[block.root]) if block.root is not None else range(0)
        for tile in own:
            tiles[tile].update(root)
            tiles[tile].update(range(own.start, tile + 1))
    return [sorted(row) for row in tiles]


def _tiles_of(block: Block) -> range:
    return range(block.start // TILE, (block.start + block.length - 1) // TILE + 1)


TREE_KERNELS: Mapping[str, Callable[[Tensor, Tensor, Tensor, TreeTable, float | None], Tensor]] = {
    "segments": segment_attention,
    "flex": flex_tree_attention,
    "varlen": varlen_tree_attention,
}


def attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    tree: TreeTable | None = None,
    slots: SlotAttention | None = None,
    tree_kernel: str = "segments",
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The function that transformers calls in every layer; shapes as in `segment_attention`."""
    if tree is not None:
        return TREE_KERNELS[tree_kernel](query, key, value, tree, scaling), None
    if slots is not None:
        layer: Any = module.layer_idx
        return slots.attend(int(layer), query, key, value, scaling), None
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        raise ValueError(
            f"a mask of ones and zeros is added to the scores and hides nothing: expected bool, got "
            f"{attention_mask.dtype}; compare it with 0 first"
        )
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


def attention_mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """The mask that transformers prepares: none for tree and slots, its own for padded rows (4-D ones pass by)."""
    if attention_mask is None:
        return None
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


def register() -> str:
    """Make the function known to transformers (safe to repeat) and return its name."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attention_forward)
    AttentionMaskInterface.register(NAME, attention_mask)
    return NAME
