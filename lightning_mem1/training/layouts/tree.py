"""Layouts: how trajectories become rows of tokens that training can score, and which token sees which.

`tree` and `rows` are exact: every action token is scored in the context it was sampled in. `rows` is the oracle
(one padded row per turn, ordinary causal attention). `tree` packs everything into one row without padding::

    trajectory: prompt P, turns (A0 I0) (A1 I1) (A2 -), memory mode mem1
    rows:  P A0 | P A0 I0 A1 | P A1 I1 A2
    tree:  P | A0 I0 A1 | a1 I1 A2            a1 = copy of A1, not scored a second time

In `tree` the prompt stands once, also for all trajectories of a group. Each segment sees the prompt and itself,
causally, with positions that go on from the end of the prompt. A turn whose context continues the open segment is
appended to it (A1 above saw A0 I0, and full-history trajectories become a single segment); any other turn opens a
new segment with a loss-free copy of its context.

`stitched` and `official` are not exact and there for comparison. They hold a single copy of the trajectory under a mask
of two dimensions, as the paper and its public code train::

    single copy:  P A0 I0 A1 I1 A2

A turn then plays two parts with the same hidden states. A1 has seen A0 and I0, as it had to when it was sampled; what
A2 sees of A1 therefore carries A0 and I0, which the rollout had dropped. And A2 stands further from the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lightning_mem1.checks import check_choice
from lightning_mem1.context.memory import contexts
from lightning_mem1.context.origins import single_copy, token_origins
from lightning_mem1.types import Trajectory

LAYOUTS = ("tree", "rows", "stitched", "official")

StateEnd = Callable[[Sequence[int]], int]  # a turn's action ids -> how many of them are its internal state with tags


def check_layout(layout: str, mode: str = "mem1") -> None:
    """Raise ValueError when `layout` is not a layout, or not one of memory mode `mode`."""
    check_choice("layout", layout, LAYOUTS, "model.layout")
    if layout == "official" and mode != "mem1":
        raise ValueError(
            f"layout official knows one memory mode: expected mem1, got '{mode}'; set model.memory or model.layout"
        )


@dataclass(frozen=True)
class ScoredSpan:
    """Where a turn's action tokens stand: `start` counts from the segment's first token."""

    trajectory: int
    turn: int
    start: int
    length: int


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


@dataclass(frozen=True)
class Run:
    """Tokens of a single copy that see the same tokens before them, and each other causally.

    Attributes:
        start: Place of the first one in the row.
        length: How many they are.
        sees: Places of the tokens before them that they see.
    """

    start: int
    length: int
    sees: Sequence[int] = ()


@dataclass(frozen=True)
class Stitch:
    """A trajectory in one row, each token once; a token's position is its place in the row.

    Attributes:
        ids: The tokens: prompt, action, information, action, ... up to the last action.
        prompt_length: How many of them are the prompt.
        runs: What sees what; they tile the row.
        spans: The scored spans.
    """

    ids: list[int]
    prompt_length: int
    runs: list[Run]
    spans: list[ScoredSpan]


def stitched(trajectories: Sequence[Trajectory], mode: str = "mem1", window: int = 2) -> list[Stitch]:
    """The paper's single copy (arXiv 2506.15841): a token sees what was in the context when it was written.

    An action sees the context of its turn, information what the next turn's context holds before it (the action is out,
    so what is older is gone). In mode mem1, for a prompt of one token, actions of one and information of one::

        P   1
        A0  1 1
        I0  1 1 1
        A1  1 1 1 1
        I1  1 . . 1 1
        A2  1 . . 1 1 1

    The first two turns are exact. A2 is not, because what it sees of A1 has seen A0 and I0, and because two places more
    lie between it and the prompt. Other memory modes follow from their contexts; `full` is exact throughout.

    Raises:
        ValueError: a memory mode whose contexts are not made of the trajectory's own tokens.
    """
    copies = []
    for number, trajectory in enumerate(trajectories):
        seen = [
            [_own(place, mode, trajectory) for place in places] for places in token_origins(trajectory, mode, window)
        ]
        copies.append(_stitch(number, trajectory, seen, seen[1:]))
    return [copy for copy in copies if copy.spans]


def official(trajectories: Sequence[Trajectory], state_end: StateEnd) -> list[Stitch]:
    """The single copy under the mask that the paper's public code draws; unlike there, the mask is enforced.

    (There it is a matrix of ones and zeros that is added to the scores, which hides nothing, not even the future.) It
    differs from the paper's: an action sees of the turn before only what follows the internal state, and information
    sees nothing but itself. For actions made of a state T and a rest R::

        P   1
        T0  1 1
        R0  1 1 1
        I0  . . . 1
        T1  1 . 1 1 1
        R1  1 . 1 1 1 1

    Args:
        trajectories: What was played, in memory mode mem1.
        state_end: Where a turn's rest begins.
    """
    copies = []
    for number, trajectory in enumerate(trajectories):
        end = len(trajectory.prompt_ids)
        seen = [[*range(end)]]
        for turn in trajectory.turns:
            start, end = end + state_end(turn.action_ids), end + len(turn.action_ids) + len(turn.information_ids)
            seen.append(seen[-1] if turn.retried else [*range(len(trajectory.prompt_ids)), *range(start, end)])
        copies.append(_stitch(number, trajectory, seen, [[]] * len(trajectory.turns)))
    return [copy for copy in copies if copy.spans]


def _own(place: int | None, mode: str, trajectory: Trajectory) -> int:
    if place is None:
        raise ValueError(
            f"layout stitched cannot express memory mode '{mode}': expected contexts made of the trajectory's own "
            f"tokens, got others in '{trajectory.task.id}'; set model.layout tree"
        )
    return place


def _seen_once(trajectory: Trajectory) -> list[int]:
    """The single copy without the last information, which is in no context."""
    ids = single_copy(trajectory)
    return ids[: len(ids) - len(trajectory.turns[-1].information_ids)] if trajectory.turns else ids


def _stitch(
    number: int,
    trajectory: Trajectory,
    actions_see: Sequence[Sequence[int]],
    information_sees: Sequence[Sequence[int]],
) -> Stitch:
    """The row of a trajectory; of what a token may see, it sees what stands before it."""
    end = len(trajectory.prompt_ids)
    runs, spans = [Run(0, end)], []
    for turn, played in enumerate(trajectory.turns):
        opening, written, information = len(played.opening_ids), len(played.ids), len(played.information_ids)
        spans.append(ScoredSpan(number, turn, end + opening, len(played.action_ids)))
        runs.append(Run(end, written, [place for place in actions_see[turn] if place < end]))
        end += written
        if information and turn + 1 < len(trajectory.turns):  # the last one is in no context
            runs.append(Run(end, information, [place for place in information_sees[turn] if place < end]))
            end += information
    return Stitch(_seen_once(trajectory), len(trajectory.prompt_ids), runs, spans)


def _append_action(segment: Segment, trajectory: int, turn: int, action_ids: Sequence[int]) -> None:
    segment.spans.append(ScoredSpan(trajectory, turn, len(segment.ids), len(action_ids)))
    segment.ids = [*segment.ids, *action_ids]


def num_tokens(trajectory: Trajectory, layout: str = "tree", mode: str = "mem1", window: int = 2) -> int:
    """Tokens that training runs through for one trajectory on its own (padding not counted)."""
    check_layout(layout, mode)
    if layout == "tree":
        return tree([trajectory], mode, window).num_tokens
    if layout == "rows":
        return sum(len(row.ids) for row in rows([trajectory], mode, window))
    return len(_seen_once(trajectory))
