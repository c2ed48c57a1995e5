"""What an environment says about a step, as values that every file can hold: plain, of bounded size, valid text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MAX_ITEMS = 200  # of a mapping or a list
MAX_DEPTH = 6
FULL_ENTRIES = 16  # of the outermost mapping or list, each may be as long as one text
MAX_INTEGER = 2**63
UNPRINTABLE = "(cannot be printed)"


def plain(value: Any, max_chars: int, depth: int = 0) -> Any:
    """A value as None, bool, int, float, str, or lists and dicts of these.

    Args:
        value: Anything; numpy's scalars and arrays become Python's own.
        max_chars: Longer texts lose their middle.
        depth: How many lists and dicts are around it.

    Returns:
        What was too deep, too many, too long or not printable is named instead of held::

            10**5000                    "an integer of about 5,001 digits"
            object()                    "<object object at ...>"
            a list of 1,000 numbers     its first 200, and "800 left out"
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, np.generic):
        return plain(value.item(), max_chars, depth)
    if isinstance(value, np.ndarray):
        return plain(value.ravel()[: MAX_ITEMS + 1].tolist() if value.ndim else value.item(), max_chars, depth)
    if isinstance(value, int):
        return int(value) if abs(value) < MAX_INTEGER else f"an integer of about {_digits(value):,} digits"
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return valid_text(bounded(str.__str__(value), max_chars))
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _items(value, max_chars, depth)
    return _printed(value, max_chars)


def _items(value: Any, max_chars: int, depth: int) -> Any:
    if depth >= MAX_DEPTH:
        return f"({type(value).__name__} in {MAX_DEPTH} others)"
    left_out = f"{len(value) - MAX_ITEMS:,} left out" if len(value) > MAX_ITEMS else ""
    shares = max(1, min(len(value), MAX_ITEMS) // (1 if depth else FULL_ENTRIES))
    room = max(1, max_chars // shares)  # so that all of them together stay within bounds
    if isinstance(value, Mapping):
        pairs = [(_printed(k, 100), plain(v, room, depth + 1)) for k, v in _first(value.items())]
        return dict([*pairs, *([("...", left_out)] if left_out else [])])
    return [*(plain(each, room, depth + 1) for each in _first(value)), *([left_out] if left_out else [])]


def _first(values: Any) -> Sequence[Any]:
    return [each for each, _ in zip(values, range(MAX_ITEMS), strict=False)]


def _printed(value: Any, max_chars: int) -> str:
    try:
        return valid_text(bounded(str(value), max_chars))
    except Exception:
        return UNPRINTABLE


def _digits(number: int) -> int:
    return math.floor(number.bit_length() * math.log10(2)) + 1


def valid_text(text: str) -> str:
    """Text that can be written as UTF-8: a lone surrogate becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def bounded(text: str, max_chars: int) -> str:
    """A text without its middle when it is longer: a reply of megabytes is not tokenised.

    >>> bounded("0123456789", 4)
    '0189'
    """
    head = max_chars // 2
    return text if len(text) <= max_chars else text[:head] + text[len(text) - (max_chars - head) :]
