"""A batch of any exact layout as rows of one context each, for models that cannot read it packed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_mem1.policy.blocks import above, place_index
from lightning_mem1.policy.rotary import LengthRule
from lightning_mem1.policy.tree_table import TreeTable


class PackedBatch(Protocol):
    """What is read of a `collator.Batch`."""

    @property
    def input_ids(self) -> Tensor: ...
    @property
    def tree(self) -> TreeTable | None: ...
    @property
    def predict_index(self) -> Tensor: ...
    @property
    def trajectory_index(self) -> Tensor: ...
    @property
    def turn_index(self) -> Tensor: ...


@dataclass(frozen=True)
class Rows:
    """Contexts, one in a row, padded on the right.

    Attributes:
        input_ids: (B, L).
        counts: Tokens of each row.
        predict_index: (N,) index into the flattened (B * L) hidden states, in the batch's order of action tokens.
        lengths: (B, L) lengths of context that rotary frequencies are of; None where they do not depend on it.
    """

    input_ids: Tensor
    counts: tuple[int, ...]
    predict_index: Tensor
    lengths: Tensor | None

    @property
    def mask(self) -> Tensor:
        """(B, L) True on tokens that are not padding."""
        counts = torch.tensor(self.counts, device=self.input_ids.device)
        return torch.arange(self.input_ids.shape[1], device=self.input_ids.device) < counts[:, None]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Ids and lengths (1, n) of one row after the other."""
        for row, count in enumerate(self.counts):
            lengths = None if self.lengths is None else self.lengths[row : row + 1, :count]
            yield self.input_ids[row : row + 1, :count], lengths


@dataclass(frozen=True)
class _Token:
    """An action token: the row it is scored in, and the place in it that predicts it."""

    row: tuple[int, ...]
    place: int


def rows_of(batch: PackedBatch, rule: LengthRule | None) -> Rows:
    """Unpack a batch of layout `tree` or `rows`.

    Args:
        batch: Of `tree`, every segment becomes a row with what it hangs on before it; of `rows`, every row stays one.
        rule: Where frequencies depend on the length, every turn becomes a row of its own, and one that grows beyond
            the original length of LongRoPE two: tokens are predicted with the frequencies of what comes before them.
    """
    places = _places(batch)
    tokens = [token for turn in _turns(batch) for token in _tokens(batch, turn, places, rule)]
    ends: dict[tuple[int, ...], int] = {}
    starts: dict[tuple[int, ...], int] = {}
    for token in tokens:
        ends[token.row] = max(ends.get(token.row, 0), token.place + 1)
        starts[token.row] = min(starts.get(token.row, token.place), token.place)
    flat = batch.input_ids.flatten()
    found = [flat[places[row[0]][:end].to(flat.device)] for row, end in ends.items()]
    input_ids = pad_sequence(found, batch_first=True)
    number = {row: n for n, row in enumerate(ends)}
    predict = [number[token.row] * input_ids.shape[1] + token.place for token in tokens]
    lengths = None
    if rule is not None:
        each = [rule.of_row(starts[row] + 1, end) for row, end in ends.items()]
        lengths = pad_sequence(each, batch_first=True, padding_value=1).to(flat.device)
    return Rows(input_ids, tuple(ends.values()), torch.tensor(predict, device=flat.device), lengths)


def _places(batch: PackedBatch) -> list[Tensor]:
    """Where the tokens of each row are in the flattened batch."""
    if batch.tree is None:
        width = batch.input_ids.shape[1]
        return [torch.arange(width) + row * width for row in range(len(batch.input_ids))]
    blocks = batch.tree.blocks
    return [place_index([*above(block, blocks), block]) for block in blocks]


def _turns(batch: PackedBatch) -> Iterator[list[int]]:
    """Numbers of the action tokens of each turn."""
    columns = (batch.trajectory_index.tolist(), batch.turn_index.tolist())
    for _, run in groupby(range(len(batch.predict_index)), key=lambda n: tuple(column[n] for column in columns)):
        yield list(run)


def _tokens(batch: PackedBatch, turn: list[int], places: list[Tensor], rule: LengthRule | None) -> Iterator[_Token]:
    predict = batch.predict_index[torch.tensor(turn, device=batch.predict_index.device)].tolist()
    if batch.tree is None:
        width = batch.input_ids.shape[1]
        row, found = predict[0] // width, [place % width for place in predict]
    else:
        # the last one is predicted in the segment where the turn ends, the others there or in what it hangs on
        row = int(batch.tree.own[predict[-1]])
        found = batch.tree.positions[torch.tensor(predict, device=batch.tree.own.device)].tolist()
    for place in found:
        long = rule is not None and rule.two_sets and place + 1 > rule.original
        yield _Token((row,) if rule is None else (row, turn[0], long), place)
