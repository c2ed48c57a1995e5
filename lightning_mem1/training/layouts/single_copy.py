"""Single copies of a trajectory, as the paper and its public code train: not exact, and there for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_mem1.context.contexts import Contexts, derived
from lightning_mem1.context.memory import MemoryMode
from lightning_mem1.context.origins import seen_once, token_origins
from lightning_mem1.context.settings import MemorySetting
from lightning_mem1.training.layouts.spans import ScoredSpan, StateEnd
from lightning_mem1.types import Trajectory


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


def stitched(trajectories: Sequence[Trajectory], memory: MemorySetting | Contexts = "mem1") -> list[Stitch]:
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
    contexts, copies = derived(memory), []
    for number, trajectory in enumerate(trajectories):
        origins = token_origins(trajectory, contexts)
        seen = [[_own(place, contexts.memory, trajectory) for place in places] for places in origins]
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
            start, end = end + state_end(turn.ids), end + len(turn.ids) + len(turn.information_ids)
            seen.append(seen[-1] if turn.retried else [*range(len(trajectory.prompt_ids)), *range(start, end)])
        copies.append(_stitch(number, trajectory, seen, [[]] * len(trajectory.turns)))
    return [copy for copy in copies if copy.spans]


def _own(place: int | None, memory: MemoryMode, trajectory: Trajectory) -> int:
    if place is None:
        raise ValueError(
            f"layout stitched cannot express memory mode '{memory}': expected contexts made of the trajectory's own "
            f"tokens, got others in '{trajectory.task.id}'; set model.layout tree"
        )
    return place


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
    return Stitch(seen_once(trajectory), len(trajectory.prompt_ids), runs, spans)
