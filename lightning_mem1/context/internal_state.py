"""Where in a turn's ids the internal state is, and how much of it was copied from the one before."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_mem1.context.memory import Decode
from lightning_mem1.types import Trajectory

if TYPE_CHECKING:
    from torch import Tensor

COPIED_RUN = 3  # ids in a row that count as copied


def state_span(ids: Sequence[int], decode: Decode, tag: str) -> tuple[int, int]:
    """First id after the opening tag, and first id of the closing tag (the end of the turn when it was cut off).

    An id that holds the end of a tag together with something else counts as the tag's. Without an opening tag the span
    begins with the turn where it is closed all the same (its prompt opened it), and is empty where it is not::

        <summary> red  shoes </summary> <answer> ...      (1, 3)
        <summary> red  shoes  with  and  with             (1, 6)
                  red  shoes </summary> <answer> ...      (0, 2)
    """
    opening, closing = f"<{tag}>", f"</{tag}>"
    start = 0
    if not _opened_before(ids, decode, tag):
        start = bisect_left(range(len(ids) + 1), True, key=lambda n: opening in decode(ids[:n]))
    rest = ids[start:]
    end = decode(rest).find(closing)
    if end < 0:
        return min(start, len(ids)), len(ids)
    # the first id with a character beyond `end` begins the closing tag
    return start, start + bisect_left(range(len(rest) + 1), True, key=lambda n: len(decode(rest[:n])) > end) - 1


def state_end(ids: Sequence[int], decode: Decode, tag: str) -> int:
    """Number of ids up to the end of the closing tag: all of them when it was cut off, none without a state.

    ::

        <summary> red  shoes </summary> <answer> ...      4
        <answer> ...                                      0
    """
    if f"<{tag}>" not in decode(ids) and not _opened_before(ids, decode, tag):
        return 0
    start, _ = state_span(ids, decode, tag)
    rest, closing = ids[start:], f"</{tag}>"
    return start + min(len(rest), bisect_left(range(len(rest) + 1), True, key=lambda n: closing in decode(rest[:n])))


def _opened_before(ids: Sequence[int], decode: Decode, tag: str) -> bool:
    """Whether a state is closed that these ids did not open."""
    text = decode(ids)
    return f"</{tag}>" in text and f"<{tag}>" not in text


def state_spans(trajectory: Trajectory, decode: Decode, tag: str) -> list[tuple[int, int]]:
    """The span of every turn, in its action ids; the opening that a memory was given does not count."""
    spans = []
    for turn in trajectory.turns:
        opening = len(turn.opening_ids)
        start, end = state_span(turn.ids, decode, tag)
        spans.append((max(start - opening, 0), max(end - opening, 0)))
    return spans


def state_turns(trajectory: Trajectory) -> list[int]:
    """Numbers of the turns whose states are carried on: those that write a memory where there are any, else all.

    One that was malformed and retried is carried nowhere.
    """
    left = [(number, turn) for number, turn in enumerate(trajectory.turns) if not turn.retried]
    return [number for number, turn in left if turn.kind == "memory"] or [number for number, _ in left]


def state_lengths(trajectory: Trajectory, spans: Sequence[tuple[int, int]]) -> list[int]:
    """Tokens of each state that is carried on."""
    return [spans[number][1] - spans[number][0] for number in state_turns(trajectory)]


def state_mask(trajectory: Trajectory, spans: Sequence[tuple[int, int]]) -> Tensor:
    """(T,) True on the action tokens that are about memory: internal states, and turns that act on memory alone."""
    import torch  # here, so that settings which name a memory mode are read without it

    masks = [
        torch.full((len(turn.action_ids),), turn.directive is not None and not turn.directive.acts)
        for turn in trajectory.turns
    ]
    for mask, (start, end) in zip(masks, spans, strict=True):
        mask[start:end] = True
    return torch.cat(masks) if masks else torch.zeros(0, dtype=torch.bool)


def copy_rate(previous: Sequence[int], state: Sequence[int]) -> float | None:
    """Share of a state's runs of `COPIED_RUN` ids that are in the previous state too; None when it is too short.

    >>> copy_rate([1, 2, 3, 4], [1, 2, 3, 9])
    0.5
    """
    runs = _runs(state)
    if not runs:
        return None
    known = set(_runs(previous))
    return sum(run in known for run in runs) / len(runs)


def copy_rates(trajectory: Trajectory, spans: Sequence[tuple[int, int]]) -> list[float]:
    """Copy rate of every state but the first, without those that are too short. 1 means that memory stays the same."""
    states = [trajectory.turns[number].action_ids[slice(*spans[number])] for number in state_turns(trajectory)]
    rates = [copy_rate(before, after) for before, after in zip(states, states[1:], strict=False)]
    return [rate for rate in rates if rate is not None]


def _runs(ids: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(ids[i : i + COPIED_RUN]) for i in range(len(ids) - COPIED_RUN + 1)]
