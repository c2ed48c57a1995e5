"""Layouts: how trajectories become rows of tokens that training can score, and which token sees which.

`tree` and `rows` are exact: every action token is scored in the context it was sampled in. `rows` is the oracle
(one padded row per turn, ordinary causal attention). `tree` packs everything into one row without padding::

    trajectory: prompt P, turns (A0 I0) (A1 I1) (A2 -), memory mode mem1
    rows:  P A0 | P A0 I0 A1 | P A1 I1 A2
    tree:  P | A0 I0 A1 | a1 I1 A2            a1 = copy of A1, not scored a second time

In `tree` each segment sees the prompt and itself, causally, with positions that continue from the end of the prompt. A
turn whose context continues the open segment is appended to it (A1 above saw A0 I0, and full-history trajectories
become a single segment); any other turn opens a new segment with a loss-free copy of its context. What several segments
begin with is there once, the prompt first of all, also for all trajectories of a group: see `trie`.

`stitched` and `official` are not exact and there for comparison. They hold a single copy of the trajectory under a mask
of two dimensions, as the paper and its public code train::

    single copy:  P A0 I0 A1 I1 A2

A turn then plays two parts with the same hidden states. A1 has seen A0 and I0, as it had to when it was sampled; what
A2 sees of A1 therefore carries A0 and I0, which the rollout had dropped. And A2 stands further from the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from lightning_mem1.context.contexts import Context, Contexts, derived
from lightning_mem1.context.settings import MemorySetting
from lightning_mem1.training.layouts.spans import ScoredSpan
from lightning_mem1.types import Trajectory


@dataclass
class Segment:
    """A run of tokens that sees the prompt and itself, causally; a row if the prompt is among them.

    Attributes:
        ids: The segment's tokens.
        spans: The scored spans inside it.
    """

    ids: list[int] = field(default_factory=list)
    spans: list[ScoredSpan] = field(default_factory=list)


def segments(trajectories: Sequence[Trajectory], memory: MemorySetting | Contexts = "mem1") -> list[Segment]:
    """Lay trajectories out as the segments that hang on their prompts, without what is the prompt's.

    Args:
        trajectories: What was played.
        memory: The memory mode it was played in, or its contexts as they were derived before.
    """
    contexts = derived(memory)
    laid = [_segments(number, each, contexts.of(each)) for number, each in enumerate(trajectories)]
    return [*chain.from_iterable(laid)]


def _segments(number: int, trajectory: Trajectory, contexts: Sequence[Context]) -> list[Segment]:
    found: list[Segment] = []
    runs: list[Sequence[int]] = []  # what the open segment is made of
    for turn, (context, played) in enumerate(zip(contexts, trajectory.turns, strict=True)):
        further = _further(found[-1].ids, runs, context.runs) if found else None
        if further is None:
            found.append(Segment([*chain.from_iterable(context.runs)]))
        else:
            found[-1].ids += further  # it starts with the segment's own tokens, so nothing moves
        _append_action(found[-1], number, turn, played.action_ids)
        runs = [*context.runs, played.action_ids] if played.action_ids else context.runs
    return found


def _further(ids: list[int], runs: Sequence[Sequence[int]], seen: Sequence[Sequence[int]]) -> list[int] | None:
    """What a context has after the tokens of the open segment; None when it does not start with them.

    Run by run, which costs nothing where both are made of the same lists; token by token where they are cut otherwise.
    """
    if len(runs) <= len(seen) and all(a is b or a == b for a, b in zip(runs, seen, strict=False)):
        return [*chain.from_iterable(seen[len(runs) :])]
    flat = [*chain.from_iterable(seen)]
    return flat[len(ids) :] if flat[: len(ids)] == ids else None


def rows(trajectories: Sequence[Trajectory], memory: MemorySetting | Contexts = "mem1") -> list[Segment]:
    """Lay trajectories out as one full row, prompt included, per turn; the arguments are those of `segments`."""
    contexts, result = derived(memory), []
    for number, trajectory in enumerate(trajectories):
        for turn, (context, played) in enumerate(zip(contexts.of(trajectory), trajectory.turns, strict=True)):
            row = Segment(context.ids)
            _append_action(row, number, turn, played.action_ids)
            result.append(row)
    return result


def _append_action(segment: Segment, trajectory: int, turn: int, action_ids: Sequence[int]) -> None:
    segment.spans.append(ScoredSpan(trajectory, turn, len(segment.ids), len(action_ids)))
    segment.ids += action_ids
