"""Where the tokens of a context are in the trajectory, whatever the memory mode that chose them.

A memory mode says which ids stay, not where it took them from. Where it hands on lists of its own making, it is run
once more on ids that know their places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, count

from lightning_mem1.context.contexts import Contexts, derive, derived
from lightning_mem1.context.modes.recorded import Recorded
from lightning_mem1.context.settings import MemorySetting
from lightning_mem1.types import Trajectory


def single_copy(trajectory: Trajectory) -> list[int]:
    """Prompt, turn, information, turn, ...: every token once, the openings of turns included."""
    pieces = [ids for turn in trajectory.turns for ids in (turn.ids, turn.information_ids)]
    return [*trajectory.prompt_ids, *chain.from_iterable(pieces)]


class TracedId(int):
    """A token id, equal to itself in all that a memory mode does with it, that knows its place in the single copy."""

    place: int


def traced(trajectory: Trajectory) -> Trajectory:
    """The trajectory with ids that know their places, counted from 0 in the order of `single_copy`."""
    places = count()

    def named(ids: Sequence[int]) -> list[int]:
        return list(_placed_ids(ids, places))

    prompt = named(trajectory.prompt_ids)
    turns = [
        replace(
            turn,
            opening_ids=named(turn.opening_ids),
            action_ids=named(turn.action_ids),
            information_ids=named(turn.information_ids),
        )
        for turn in trajectory.turns
    ]
    return replace(trajectory, prompt_ids=prompt, turns=turns)


def _placed_ids(ids: Sequence[int], places: Iterator[int]) -> Iterator[TracedId]:
    for each in ids:
        known = TracedId(each)
        known.place = next(places)
        yield known


def token_origins(trajectory: Trajectory, memory: MemorySetting | Contexts = "mem1") -> list[list[int | None]]:
    """Where the tokens of each turn's context are in the single copy; None for one that the mode made itself.

    For a prompt of 2, turns of 1 and replies of 1, in mode mem1::

        turn 0   0 1
        turn 1   0 1 2 3
        turn 2   0 1 4 5

    Where a mode hands on the turns' own lists, their places are known, and nothing is derived a second time. Of a
    recorded context what begins like an earlier one, with its turn and reply, is known.
    """
    known = derived(memory)
    if isinstance(known.memory, Recorded):
        return _recorded_origins(trajectory, known)
    places, prompt = _places(trajectory), range(len(trajectory.prompt_ids))
    seen = known.of(trajectory)
    if all(id(run) in places for context in seen for run in context.runs):
        return [[*prompt, *chain.from_iterable(places[id(run)] for run in context.runs)] for context in seen]
    return [
        [getattr(each, "place", None) for each in context.ids] for context in derive(traced(trajectory), known.memory)
    ]


def _recorded_origins(trajectory: Trajectory, known: Contexts) -> list[list[int | None]]:
    """What each context shares with the row of an earlier turn (its context, turn and reply) is where it is there."""
    rows: list[tuple[list[int], list[int | None]]] = [(trajectory.prompt_ids, [*range(len(trajectory.prompt_ids))])]
    found, start = [], len(trajectory.prompt_ids)
    for turn, context in zip(trajectory.turns, known.of(trajectory), strict=True):
        ids = context.ids
        shared, places = max(((common_length(ids, row), places) for row, places in rows), key=lambda pair: pair[0])
        found.append([*places[:shared], *[None] * (len(ids) - shared)])
        end = start + len(turn.ids) + len(turn.information_ids)
        after = [*range(start + len(turn.opening_ids), end)]  # the context ends with the opening
        rows.append(([*ids, *turn.action_ids, *turn.information_ids], [*found[-1], *after]))
        start = end
    return found


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two lists begin with alike; whole slices are compared, which costs no step per id.

    >>> common_length([5, 6, 7, 8], [5, 6, 9])
    2
    """
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _places(trajectory: Trajectory) -> dict[int, range]:
    """Places of the turns' lists by their ids in memory; a list that two turns share is left out."""
    places: dict[int, range] = {}
    shared, start = set(), len(trajectory.prompt_ids)
    for turn in trajectory.turns:
        for ids in filter(None, (turn.opening_ids, turn.action_ids, turn.information_ids)):
            shared |= {id(ids)} & places.keys()
            places[id(ids)] = range(start, start := start + len(ids))
    return {number: place for number, place in places.items() if number not in shared}


def seen_once(trajectory: Trajectory) -> list[int]:
    """The single copy without the last information, which is in no context."""
    ids = single_copy(trajectory)
    return ids[: len(ids) - len(trajectory.turns[-1].information_ids)] if trajectory.turns else ids
