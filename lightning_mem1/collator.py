"""The truncated-attention collator: a list of trajectories -> the tensors of one forward pass.

What a token may see is not in a mask of ones and zeros but in `Batch.tree` (layout `tree`) or in the row it stands
in (layout `rows`); the scored tokens are the same, in the same order, for both.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from lightning_mem1.layouts import Segment, check_layout, num_tokens, rows, tree
from lightning_mem1.policy.attention import Block, TreeTable, tree_table
from lightning_mem1.types import Trajectory


@dataclass(frozen=True)
class Batch:
    """Tensors of one forward pass; N is the number of action tokens, trajectory by trajectory, turn by turn.

    Attributes:
        input_ids: (B, L); B = 1 for `tree`.
        position_ids: (B, L); each segment goes on from the end of its prompt.
        attention_mask: (B, L) True on tokens that are not padding (`rows`), else None.
        tree: The segment table (`tree`), else None.
        predict_index: (N,) index into the flattened (B * L) hidden states that predict the action tokens.
        action_ids: (N,) the action tokens.
        rollout_logprobs: (N,) their log-probabilities when they were sampled, in nats.
        trajectory_index: (N,) trajectory of each action token, counted in this batch.
        turn_index: (N,) turn of each action token.
        num_trajectories: How many trajectories were collated.
        num_tokens: Tokens in the pass, padding not counted.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor | None
    tree: TreeTable | None
    predict_index: Tensor
    action_ids: Tensor
    rollout_logprobs: Tensor
    trajectory_index: Tensor
    turn_index: Tensor
    num_trajectories: int
    num_tokens: int

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {k: v.to(device) for k, v in values.items() if isinstance(v, Tensor | TreeTable)}
        return replace(self, **moved)


def collate(trajectories: Sequence[Trajectory], layout: str = "tree", memory: str = "mem1", window: int = 2) -> Batch:
    """Make the batch of a layout.

    Raises:
        ValueError: unknown layout or memory mode, or no action token at all.
    """
    check_layout(layout)
    if not any(turn.action_ids for trajectory in trajectories for turn in trajectory.turns):
        raise ValueError(f"nothing to train on: expected at least one action token in {len(trajectories)} trajectories")
    return (_collate_tree if layout == "tree" else _collate_rows)(trajectories, memory, window)


def _collate_tree(trajectories: Sequence[Trajectory], memory: str, window: int) -> Batch:
    forest = tree(trajectories, memory, window)
    blocks: list[Block] = []
    for ids in forest.prompts:
        blocks.append(Block(_end(blocks), len(ids)))
    for segment in forest.segments:
        blocks.append(Block(_end(blocks), len(segment.ids), segment.prompt))
    leaves = blocks[len(forest.prompts) :]
    input_ids = torch.tensor([*chain(*forest.prompts, *(segment.ids for segment in forest.segments))])
    positions = [torch.arange(block.length) + _offset(block, blocks) for block in blocks]
    # the first token of a segment is predicted from the last token of its prompt
    predict = []
    for segment, block in zip(forest.segments, leaves, strict=True):
        root = blocks[segment.prompt]
        before = torch.cat([torch.tensor([root.start + root.length - 1]), torch.arange(block.length - 1) + block.start])
        predict += [before[span.start : span.start + span.length] for span in segment.spans]
    return Batch(
        input_ids=input_ids[None],
        position_ids=torch.cat(positions)[None],
        attention_mask=None,
        tree=tree_table(blocks),
        predict_index=torch.cat(predict),
        num_tokens=len(input_ids),
        **_action_columns(trajectories, forest.segments),
    )


def _collate_rows(trajectories: Sequence[Trajectory], memory: str, window: int) -> Batch:
    lines = rows(trajectories, memory, window)
    lengths = torch.tensor([[len(line.ids)] for line in lines])
    width = int(lengths.max())
    steps = torch.arange(width)
    input_ids = torch.zeros(len(lines), width, dtype=torch.long)
    for row, line in zip(input_ids, lines, strict=True):
        row[: len(line.ids)] = torch.tensor(line.ids)
    predict = [
        torch.arange(span.length) + number * width + span.start - 1
        for number, line in enumerate(lines)
        for span in line.spans
    ]
    return Batch(
        input_ids=input_ids,
        position_ids=steps.expand(len(lines), -1),
        attention_mask=steps < lengths,
        tree=None,
        predict_index=torch.cat(predict),
        num_tokens=int(lengths.sum()),
        **_action_columns(trajectories, lines),
    )


def _action_columns(trajectories: Sequence[Trajectory], segments: Sequence[Segment]) -> dict[str, Any]:
    spans = list(chain.from_iterable(segment.spans for segment in segments))
    turns = [trajectories[span.trajectory].turns[span.turn] for span in spans]
    lengths = torch.tensor([span.length for span in spans])
    for span, turn in zip(spans, turns, strict=True):
        if len(turn.action_logprobs) != span.length:
            raise ValueError(
                f"log-probs must align with turn {span.turn} of '{trajectories[span.trajectory].task.id}': "
                f"expected {span.length}, got {len(turn.action_logprobs)}"
            )
    return {
        "action_ids": torch.tensor([*chain.from_iterable(turn.action_ids for turn in turns)]),
        "rollout_logprobs": torch.tensor([*chain.from_iterable(turn.action_logprobs for turn in turns)]),
        "trajectory_index": torch.tensor([span.trajectory for span in spans]).repeat_interleave(lengths),
        "turn_index": torch.tensor([span.turn for span in spans]).repeat_interleave(lengths),
        "num_trajectories": len(trajectories),
    }


def _end(blocks: Sequence[Block]) -> int:
    return blocks[-1].start + blocks[-1].length if blocks else 0


def _offset(block: Block, blocks: Sequence[Block]) -> int:
    return 0 if block.root is None else blocks[block.root].length


def minibatches(
    trajectories: Sequence[Trajectory],
    max_tokens: int,
    layout: str = "tree",
    memory: str = "mem1",
    window: int = 2,
) -> list[list[int]]:
    """Split trajectories, in order, into runs of at most `max_tokens` trained tokens (a longer one stands alone).

    Neighbours stay together, so that the trajectories of a group share their prompt in `tree`.
    """
    groups: list[list[int]] = []
    room = 0
    for index, trajectory in enumerate(trajectories):
        cost = num_tokens(trajectory, layout, memory, window)
        if not groups or cost > room:
            groups.append([])
            room = max_tokens
        groups[-1].append(index)
        room -= cost
    return groups


def group_minibatches(groups: Sequence[int], count: int, seed: str) -> list[list[int]]:
    """Split trajectories evenly into `count` minibatches; groups stay together as far as the split allows.

    Args:
        groups: The group of each trajectory.
        count: Number of minibatches; with more than one, groups are shuffled.
        seed: Of the shuffle.

    Returns:
        Indices of trajectories, by minibatch.
    """
    order = sorted(set(groups))
    if count > 1:
        random.Random(seed).shuffle(order)
    rank = {group: number for number, group in enumerate(order)}
    sorted_indices = sorted(range(len(groups)), key=lambda i: (rank[groups[i]], i))
    size = math.ceil(len(sorted_indices) / count)
    return [sorted_indices[start * size : (start + 1) * size] for start in range(count)]
