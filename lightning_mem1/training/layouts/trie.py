"""Contexts in one row: what any of them have in common is there once.

Of the contexts of a group of trajectories many begin alike: all with the prompt, those of first turns with the first
observation too, and those of a policy that is sure of itself with the same turns. An agent that sends its own contexts
may start over, branch, or ask twice at once. What contexts share are their beginnings::

    contexts   P Q A0 | P Q B | P R      and the turns A0, A1, A2 that were sampled after P Q, P Q B and P R
    rows       P Q A0 | P Q B A1 | P R A2
    trie       P | Q | A0 | B A1 | R A2

Each block sees all blocks that it hangs on (Q hangs on P, A0 and B A1 on Q) and itself, causally, with positions that
continue from their end. So every context is read as it was, and a token that several share is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain

from torch import Tensor

from lightning_mem1.context.contexts import Contexts
from lightning_mem1.context.modes.recorded import Recorded
from lightning_mem1.context.origins import common_length
from lightning_mem1.policy.blocks import Block, above, place_index
from lightning_mem1.training.layouts.spans import ScoredSpan
from lightning_mem1.training.layouts.tree import Segment, rows, segments
from lightning_mem1.types import Trajectory

SHORTEST = 16  # tokens; to share fewer costs more, in blocks that are attended apart, than it saves


@dataclass(eq=False)
class _Node:
    """A run of ids behind the same ids.

    Attributes:
        ids: The run.
        children: By their owner and their first id.
        ends: The rows that end in it: their number, and how many of the ids they take.
    """

    ids: list[int]
    children: dict[tuple[int, ...], list[_Node]] = field(default_factory=dict)
    ends: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Trie:
    """Contexts with their turns, the beginnings that they share once.

    Attributes:
        ids: The tokens of all blocks, one after the other.
        blocks: What they are made of, each behind the one it hangs on.
        spans: The turns, in order; `start` counts from the first token of a row.
        ends: For each span the number of the block that its row ends in.
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
        for span, row in zip(self.spans, self.rows(), strict=True):
            yield row[span.start - 1 : span.start - 1 + span.length]

    def rows(self) -> Iterator[Tensor]:
        """For each span the places of the tokens from the first one of its row to the end of its block."""
        row = cache(lambda end: place_index([*above(self.blocks[end], self.blocks), self.blocks[end]]))
        return map(row, self.ends)


class GrowingTrie:
    """A trie to which trajectories are added one by one.

    Args:
        contexts: Of the trajectories.
        apart: Share nothing but prompts among trajectories.
    """

    def __init__(self, contexts: Contexts, apart: bool = False) -> None:
        self.num_tokens = 0
        self._contexts, self._apart = contexts, apart
        self._root = _Node([])
        self._prompts: dict[tuple[int, ...], _Node] = {}
        self._spans: list[list[ScoredSpan]] = []  # by row
        self._num_trajectories = 0

    def add(self, trajectory: Trajectory) -> None:
        """Add the rows of a trajectory.

        Raises:
            ValueError: a turn was sampled after no token at all.
        """
        number, self._num_trajectories = self._num_trajectories, self._num_trajectories + 1
        for row in self._rows(trajectory):
            if row.spans[0].start == 0:
                raise ValueError(
                    f"turn {row.spans[0].turn} of '{trajectory.task.id}' has no context: expected at least one token"
                )
            self._spans.append([replace(span, trajectory=number) for span in row.spans])
            prompt = trajectory.prompt_ids
            if self._apart and (own := row.ids[len(prompt) :]):
                self._insert(self._prompt(prompt), own, SHORTEST, owner=number)
            else:
                self._insert(self._root, row.ids, min(len(prompt), SHORTEST))

    def _prompt(self, ids: list[int]) -> _Node:
        """The block of a prompt, which several trajectories share and nothing else."""
        if tuple(ids) not in self._prompts:
            node = self._prompts[tuple(ids)] = _Node(ids)
            self._root.children.setdefault((-1, *ids[:1]), []).append(node)
            self.num_tokens += len(ids)
        return self._prompts[tuple(ids)]

    def _rows(self, trajectory: Trajectory) -> list[Segment]:
        """What a trajectory is made of, the prompt included."""
        if isinstance(self._contexts.memory, Recorded):  # nothing is known of how contexts follow from each other
            return rows([trajectory], self._contexts)
        prompt = trajectory.prompt_ids
        return [
            Segment([*prompt, *each.ids], [replace(span, start=span.start + len(prompt)) for span in each.spans])
            for each in segments([trajectory], self._contexts)
        ]

    def _insert(self, node: _Node, row: Sequence[int], worth: int, owner: int = 0) -> None:
        """Put the newest row below a node: it shares a run of `worth` tokens, and behind that of `SHORTEST`.

        A run that nothing follows yet is made longer, one that the row leaves half-way is split.
        """
        number = len(self._spans) - 1
        while True:
            alike = node.children.setdefault((owner, row[0]), [])
            shared, child = max(
                ((common_length(each.ids, row), each) for each in alike), key=lambda found: found[0], default=(0, None)
            )
            if child is None or shared < min(worth, len(child.ids), len(row)):
                alike.append(_Node([*row], ends=[(number, len(row))]))
                self.num_tokens += len(row)
                return
            if shared == len(row):
                child.ends.append((number, shared))
                return
            row = row[shared:]
            if shared < len(child.ids):
                _split(child, shared, owner)
            elif not child.children:
                child.ids += row
                child.ends.append((number, len(child.ids)))
                self.num_tokens += len(row)
                return
            node, worth = child, SHORTEST

    def packed(self) -> Trie:
        """What was added, in order."""
        blocks: list[Block] = []
        pieces: list[list[int]] = []
        ends: dict[int, int] = {}
        waiting: list[tuple[_Node, int | None]] = [(each, None) for each in _children(self._root)]
        start = 0
        while waiting:  # depth first
            node, root = waiting.pop()
            for row, _ in node.ends:
                ends[row] = len(blocks)
            waiting += [(each, len(blocks)) for each in _children(node)]
            blocks.append(Block(start, len(node.ids), root))
            pieces.append(node.ids)
            start += len(node.ids)
        spans = [*chain.from_iterable(self._spans)]
        by_span = [ends[row] for row, each in enumerate(self._spans) for _ in each]
        return Trie([*chain.from_iterable(pieces)], blocks, spans, by_span)


def trie(trajectories: Sequence[Trajectory], contexts: Contexts, apart: bool = False) -> Trie:
    """Lay out the turns of trajectories behind their contexts; the arguments are those of `GrowingTrie`."""
    growing = GrowingTrie(contexts, apart)
    for trajectory in trajectories:
        growing.add(trajectory)
    return growing.packed()


def _children(node: _Node) -> list[_Node]:
    return [*chain.from_iterable(node.children.values())][::-1]


def _split(node: _Node, length: int, owner: int) -> None:
    """Cut a node in two behind so many ids; rows that end behind them end in the second part."""
    ends = [(row, taken - length) for row, taken in node.ends if taken > length]
    tail = _Node(node.ids[length:], node.children, ends)
    node.ends = [(row, taken) for row, taken in node.ends if taken <= length]
    node.ids, node.children = node.ids[:length], {(owner, tail.ids[0]): [tail]}
