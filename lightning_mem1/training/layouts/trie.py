"""Recorded contexts in one row: what any of them have in common is there once.

An agent that sends its own contexts may start over, branch, or ask twice at once, so nothing is known of how its
contexts follow from each other. What they share are their beginnings::

    contexts   P Q A0 | P Q B | P R      and the turns A0, A1, A2 that were sampled after P Q, P Q B and P R
    rows       P Q A0 | P Q B A1 | P R A2
    trie       P | Q | A0 | B A1 | R A2

Each block sees all blocks that it hangs on (Q hangs on P, A0 and B A1 on Q) and itself, causally, with positions that
continue from their end. So every context is read as it was sent, and a token that several share is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from torch import Tensor

from lightning_mem1.context.contexts import Contexts
from lightning_mem1.context.origins import common_length
from lightning_mem1.policy.blocks import Block, above, place_index
from lightning_mem1.training.layouts.spans import ScoredSpan
from lightning_mem1.types import Trajectory


@dataclass
class _Node:
    """A run of ids behind the same ids; `children` by their first id."""

    ids: list[int]
    children: dict[int, _Node] = field(default_factory=dict)


@dataclass(frozen=True)
class Trie:
    """Contexts with their turns, the beginnings that they share once.

    Attributes:
        ids: The tokens of all blocks, one after the other.
        blocks: What they are made of, each behind the one it hangs on.
        spans: The turns, in order; `start` counts from the first token of the turn's context.
        ends: For each span the number of the block that it ends in.
    """

    ids: list[int]
    blocks: list[Block]
    spans: list[ScoredSpan]
    ends: list[int]

    @property
    def num_tokens(self) -> int:
        """Tokens that a forward pass runs through."""
        return len(self.ids)

    def predicting(self) -> Iterator[Tensor]:
        """For each span the places (length,) of the tokens that predict its own."""
        for span, end in zip(self.spans, self.ends, strict=True):
            yield self.row(end)[span.start - 1 : span.start - 1 + span.length]

    def row(self, end: int) -> Tensor:
        """Places of the tokens from the first one of a context to the end of a block."""
        return place_index([*above(self.blocks[end], self.blocks), self.blocks[end]])


def trie(trajectories: Sequence[Trajectory], contexts: Contexts) -> Trie:
    """Lay out the turns of trajectories behind their contexts.

    Raises:
        ValueError: a turn was sampled after no token at all.
    """
    root, rows, spans = _Node([]), [], []
    for number, trajectory in enumerate(trajectories):
        for turn, (context, played) in enumerate(zip(contexts.of(trajectory), trajectory.turns, strict=True)):
            if not len(context):
                raise ValueError(f"turn {turn} of '{trajectory.task.id}' has no context: expected at least one token")
            rows.append([*context.ids, *played.action_ids])
            spans.append(ScoredSpan(number, turn, len(context), len(played.action_ids)))
            _insert(root, rows[-1])
    blocks, ids, numbers = _packed(root)
    return Trie(ids, blocks, spans, [numbers[id(_end(root, row))] for row in rows])


def _insert(node: _Node, row: Sequence[int]) -> None:
    """Put a row below a node: a run that nothing follows yet is made longer, one that it leaves half-way is split."""
    while row:
        child = node.children.get(row[0])
        if child is None:
            node.children[row[0]] = _Node([*row])
            return
        shared = common_length(child.ids, row)
        row = row[shared:]
        if row and shared < len(child.ids):
            tail = _Node(child.ids[shared:], child.children)
            child.ids, child.children = child.ids[:shared], {tail.ids[0]: tail}
        elif row and not child.children:
            child.ids += row
            return
        node = child


def _packed(root: _Node) -> tuple[list[Block], list[int], dict[int, int]]:
    """Blocks in the order of depth first, their ids, and their numbers by node."""
    blocks: list[Block] = []
    pieces: list[list[int]] = []
    numbers: dict[int, int] = {}
    waiting: list[tuple[_Node, int | None]] = [(each, None) for each in reversed(root.children.values())]
    start = 0
    while waiting:
        node, above_it = waiting.pop()
        numbers[id(node)] = len(blocks)
        blocks.append(Block(start, len(node.ids), above_it))
        pieces.append(node.ids)
        start += len(node.ids)
        waiting += [(each, numbers[id(node)]) for each in reversed(node.children.values())]
    return blocks, [*chain.from_iterable(pieces)], numbers


def _end(node: _Node, row: Sequence[int]) -> _Node:
    """The node that a row that was put in ends in, or half-way in."""
    place = 0
    while place < len(row):
        node = node.children[row[place]]
        place += len(node.ids)
    return node
