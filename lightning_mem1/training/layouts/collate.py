"""The truncated-attention collator: a list of trajectories -> the tensors of one forward pass.

What a token may see is not in a mask of ones and zeros but in `Batch.tree` (layout `tree`) or in the row it stands
in (layout `rows`); only the inexact layouts, `stitched` and `official`, draw a dense mask, one per trajectory. The
scored tokens are the same, in the same order, for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from lightning_mem1.context.contexts import Contexts, derived
from lightning_mem1.context.settings import MemorySetting
from lightning_mem1.policy.tree_table import TreeTable, tree_table
from lightning_mem1.training.layouts.replayed import has_routing, replayed
from lightning_mem1.training.layouts.single_copy import Stitch, official, stitched
from lightning_mem1.training.layouts.spans import ScoredSpan, StateEnd, check_layout
from lightning_mem1.training.layouts.tree import Segment, rows
from lightning_mem1.training.layouts.trie import trie
from lightning_mem1.types import Trajectory


@dataclass(frozen=True)
class Batch:
    """Tensors of one forward pass; N is the number of action tokens, trajectory by trajectory, turn by turn.

    Attributes:
        input_ids: (B, L); B = 1 for `tree`.
        position_ids: (B, L); each block continues from the end of what it hangs on, a single copy just continues.
        attention_mask: (B, L) True on tokens that are not padding (`rows`); (B, 1, L, L) True where a query sees a key
            (`stitched`, `official`); None for `tree`.
        tree: The segment table (`tree`), else None.
        predict_index: (N,) index into the flattened (B * L) hidden states that predict the action tokens.
        action_ids: (N,) the action tokens.
        rollout_logprobs: (N,) their log-probabilities when they were sampled, in nats.
        trajectory_index: (N,) trajectory of each action token, counted in this batch.
        turn_index: (N,) turn of each action token.
        num_trajectories: How many trajectories were collated.
        num_tokens: Tokens in the pass, padding not counted.
        experts: (B, L, width) int16 the experts that the routers of the rollout chose, -1 where nothing is known; None
            when they were not recorded.
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
    experts: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {k: v.to(device) for k, v in values.items() if isinstance(v, Tensor | TreeTable)}
        return replace(self, **moved)


def collate(
    trajectories: Sequence[Trajectory],
    layout: str = "tree",
    memory: MemorySetting | Contexts = "mem1",
    state_end: StateEnd | None = None,
) -> Batch:
    """Make the batch of a layout.

    Args:
        trajectories: What was played.
        layout: tree, rows, stitched or official, see `layouts`.
        memory: The memory mode it was played in, or its contexts as they were derived before.
        state_end: How many of a turn's action ids are its internal state with its tags (`internal_state.state_end`);
            layout official needs it.

    Raises:
        ValueError: unknown layout or memory mode, one that does not fit the other, or no action token at all.
    """
    contexts = derived(memory)
    check_layout(layout, contexts.memory)
    if not any(turn.action_ids for trajectory in trajectories for turn in trajectory.turns):
        raise ValueError(f"nothing to train on: expected at least one action token in {len(trajectories)} trajectories")
    if layout == "stitched":
        return _collate_stitches(trajectories, stitched(trajectories, contexts))
    if layout == "official":
        if state_end is None:
            raise ValueError("layout official hides internal states: expected state_end, which says where they end")
        return _collate_stitches(trajectories, official(trajectories, state_end))
    return (_collate_tree if layout == "tree" else _collate_rows)(trajectories, contexts)


def _collate_tree(trajectories: Sequence[Trajectory], contexts: Contexts) -> Batch:
    packed = trie(trajectories, contexts, apart=has_routing(trajectories))
    table = tree_table(packed.blocks)
    return Batch(
        input_ids=torch.tensor(packed.ids)[None],
        position_ids=table.positions[None],
        attention_mask=None,
        tree=table,
        predict_index=torch.cat([*packed.predicting()]),
        num_tokens=packed.num_tokens,
        experts=replayed(trajectories, packed.spans, packed.rows(), (1, packed.num_tokens)),
        **_action_columns(trajectories, packed.spans),
    )


def _collate_rows(trajectories: Sequence[Trajectory], contexts: Contexts) -> Batch:
    lines = rows(trajectories, contexts)
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
        experts=replayed(trajectories, _spans(lines), (steps + n * width for n in range(len(lines))), input_ids.shape),
        **_action_columns(trajectories, _spans(lines)),
    )


def _collate_stitches(trajectories: Sequence[Trajectory], lines: Sequence[Stitch]) -> Batch:
    """Prompts end in the same column, as in the public code, so a shorter one is padded on the left."""
    prompt_width = max(line.prompt_length for line in lines)
    starts = [prompt_width - line.prompt_length for line in lines]
    width = max(start + len(line.ids) for start, line in zip(starts, lines, strict=True))
    input_ids, position_ids = torch.zeros(2, len(lines), width, dtype=torch.long)
    visible = torch.zeros(len(lines), width, width, dtype=torch.bool)
    predict = []
    for number, (start, line) in enumerate(zip(starts, lines, strict=True)):
        own = slice(start, start + len(line.ids))
        input_ids[number, own] = torch.tensor(line.ids)
        position_ids[number, own] = torch.arange(len(line.ids))
        visible[number, own, own] = mask(line)
        first = number * width + start - 1  # a token is predicted from the one before it
        predict += [torch.arange(span.length) + first + span.start for span in line.spans]
    # padding sees itself, so that no softmax row is empty
    return Batch(
        input_ids=input_ids,
        position_ids=position_ids,
        attention_mask=(visible | torch.eye(width, dtype=torch.bool))[:, None],
        tree=None,
        predict_index=torch.cat(predict),
        num_tokens=sum(len(line.ids) for line in lines),
        **_action_columns(trajectories, _spans(lines)),
    )


def mask(line: Stitch) -> Tensor:
    """(L, L) True where a token of a single copy (row) sees another (column); drawn in `single_copy`."""
    seen = torch.eye(len(line.ids), dtype=torch.bool)
    for run in line.runs:
        own = slice(run.start, run.start + run.length)
        seen[own, list(run.sees)] = True
        seen[own, own] = torch.ones(run.length, run.length, dtype=torch.bool).tril()
    return seen


def _spans(segments: Sequence[Segment | Stitch]) -> list[ScoredSpan]:
    return list(chain.from_iterable(segment.spans for segment in segments))


def _action_columns(trajectories: Sequence[Trajectory], spans: Sequence[ScoredSpan]) -> dict[str, Any]:
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
