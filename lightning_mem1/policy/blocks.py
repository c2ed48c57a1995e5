"""The runs of tokens that a packed row is made of, and what hangs on what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Block:
    """A run of tokens in a packed row; `root` is the index of the block it hangs on, None for a prompt.

    The block it hangs on may hang on another one in turn: a token sees all of those, and in its own block what is
    before it.
    """

    start: int
    length: int
    root: int | None = None


def above(block: Block, blocks: Sequence[Block]) -> list[Block]:
    """The blocks that a block hangs on, the outermost first; none for a prompt."""
    found: list[Block] = []
    while block.root is not None:
        block = blocks[block.root]
        found.append(block)
    return found[::-1]


def place_index(run: Sequence[Block]) -> Tensor:
    """Places of the tokens of some blocks in the packed row, block after block."""
    return torch.cat([torch.arange(0), *(torch.arange(each.start, each.start + each.length) for each in run)])
