"""How turns are named in what a policy writes: ``0-2, 4``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

Range = tuple[int, int]  # first and last, both included

_RANGE = re.compile(r"\s*([0-9]{1,6})\s*(?:-\s*([0-9]{1,6})\s*)?")


def read_ranges(text: str) -> list[Range] | None:
    """The ranges of a list of turns; None when the text is no such list.

    >>> read_ranges("0-2, 4"), read_ranges("the first"), read_ranges("")
    ([(0, 2), (4, 4)], None, None)
    """
    found = [_RANGE.fullmatch(part) for part in text.split(",")]
    ranges = [(int(each[1]), int(each[2] or each[1])) for each in found if each]
    return ranges if len(ranges) == len(found) and all(first <= last for first, last in ranges) else None


def write_numbers(numbers: Iterable[int]) -> str:
    """Numbers as a policy may write them.

    >>> write_numbers([4, 0, 1, 2]), write_numbers([])
    ('0-2, 4', 'none')
    """
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    return ", ".join("-".join(map(str, each)) for each in ranges) or "none"


def chosen(argument: str, known: Sequence[int], action: str) -> tuple[tuple[int, ...], str]:
    """The turns that an action names, and what is wrong with them.

    Args:
        argument: What is in its brackets.
        known: Numbers that it may name.
        action: Its name.

    Returns:
        The numbers, ascending and none twice, with an empty line; or none, and one line on what was expected.
    """
    ranges = read_ranges(argument)
    if ranges is None:
        return (), f"{action}: expected numbers of turns, such as {action}[0-2, 4], got {argument[:40]!r}"
    allowed, last = set(known), max(known, default=-1)
    named = [each for first, end in ranges for each in (*range(first, min(end, last) + 1), end)]
    unknown = set(named) - allowed
    if unknown:
        possible = write_numbers(known)
        return (), f"{action}: expected turns of {possible}, got {write_numbers(unknown)}"
    return tuple(sorted(set(named))), ""
