"""Layouts: how trajectories become rows of tokens that training can score, and which token sees which.

`tree` and `rows` are exact: every action token is scored in the context it was sampled in. `rows` is the oracle
(one padded row per turn, ordinary causal attention). `tree` packs everything into one row without padding::

    trajectory: prompt P, turns (A0 I0) (A1 I1) (A2 -), memory mode mem1
    rows:  P A0 | P A0 I0 A1 | P A1 I1 A2
    tree:  P | A0 I0 A1 | a1 I1 A2            a1 = copy of A1, not scored a second time

In `tree` the prompt stands once, also for all trajectories of a group. Each segment sees the prompt and itself,
causally, with positions that continue from the end of the prompt. A turn whose context continues the open segment is
appended to it (A1 above saw A0 I0, and full-history trajectories become a single segment); any other turn opens a
new segment with a loss-free copy of its context.

`stitched` and `official` are not exact and there for comparison. They hold a single copy of the trajectory under a mask
of two dimensions, as the paper and its public code train::

    single copy:  P A0 I0 A1 I1 A2

A turn then plays two parts with the same hidden states. A1 has seen A0 and I0, as it had to when it was sampled; what
A2 sees of A1 therefore carries A0 and I0, which the rollout had dropped. And A2 stands further from the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lightning_mem1.context.memory import contexts
from lightning_mem1.training.layouts.spans import ScoredSpan
from lightning_mem1.types import Trajectory


@dataclass
class Segment:
    """A run of tokens that sees one prompt and itself, causally.

    Attributes:
        prompt: Index of the prompt it hangs on.
        ids: The segment's tokens (without the prompt's).
        spans: The scored spans inside it.
    """

    prompt: int
    ids: list[int] = field(default_factory=list)
    spans: list[ScoredSpan] = field(default_factory=list)


@dataclass
class Forest:
    """Prompts and the segments that hang on them."""

    prompts: list[list[int]]
    segments: list[Segment]

    @property
    def num_tokens(self) -> int:
        """Tokens that a forward pass of the tree layout runs through."""
        return sum(map(len, self.prompts)) + sum(len(segment.ids) for segment in self.segments)


def tree(trajectories: Sequence[Trajectory], mode: str = "mem1", window: int = 2) -> Forest:
    """Lay trajectories out as prompts (each distinct one once) and segments."""
    prompt_index: dict[tuple[int, ...], int] = {}
    segments: list[Segment] = []
    for number, trajectory in enumerate(trajectories):
        prompt = prompt_index.setdefault(tuple(trajectory.prompt_ids), len(prompt_index))
        segments += _segments(number, trajectory, prompt, mode, window)
    return Forest([list(ids) for ids in prompt_index], segments)


def _segments(number: int, trajectory: Trajectory, prompt: int, mode: str, window: int) -> list[Segment]:
    prompt_length = len(trajectory.prompt_ids)
    segments: list[Segment] = []
    for turn, context in enumerate(contexts(trajectory, mode, window)):
        seen = context[prompt_length:]
        if not segments or seen[: len(segments[-1].ids)] != segments[-1].ids:
            segments.append(Segment(prompt))
        segment = segments[-1]
        segment.ids = seen  # a continuation starts with the segment's own tokens, so nothing moves
        _append_action(segment, number, turn, trajectory.turns[turn].action_ids)
    return segments


def rows(trajectories: Sequence[Trajectory], mode: str = "mem1", window: int = 2) -> list[Segment]:
    """Lay trajectories out as one full row (prompt included) per turn; `Segment.prompt` is unused and -1."""
    result = []
    for number, trajectory in enumerate(trajectories):
        for turn, context in enumerate(contexts(trajectory, mode, window)):
            row = Segment(-1, list(context))
            _append_action(row, number, turn, trajectory.turns[turn].action_ids)
            result.append(row)
    return result


def _append_action(segment: Segment, trajectory: int, turn: int, action_ids: Sequence[int]) -> None:
    segment.spans.append(ScoredSpan(trajectory, turn, len(segment.ids), len(action_ids)))
    segment.ids = [*segment.ids, *action_ids]
