"""How alike two short texts are: thefuzz's token set ratio, from difflib.

Words are runs of letters, digits and ``_``; Latin-1 letters with accents are dropped first, as thefuzz 0.19 does.
"""

from __future__ import annotations

import re
from collections import Counter
from difflib import SequenceMatcher
from functools import lru_cache

MATCH_ABOVE = 85  # the reference counts a ratio above this as a match

_NO_WORD = re.compile(r"\W")
_LATIN_1 = dict.fromkeys(range(128, 256))


def token_set_ratio(one: str, other: str) -> int:
    """Return 0..100: the best ratio between the shared words and the shared words with either rest.

    >>> token_set_ratio("navy blue", "Blue"), token_set_ratio("leather sole", "synthetic sole")
    (100, 62)
    """
    texts = _compared(one, other)
    return max((_ratio(first, second) for first, second in texts), default=0)


@lru_cache(maxsize=1 << 18)
def alike(one: str, other: str) -> bool:
    """Return whether the token set ratio is above 85 (the same answer, faster: most pairs need no alignment)."""
    return any(_may_match(*pair) and _ratio(*pair) > MATCH_ABOVE for pair in _compared(one, other))


def _compared(one: str, other: str) -> tuple[tuple[str, str], ...]:
    """Return the three pairs of texts whose ratios count; none when a text has no word."""
    words, other_words = _words(one), _words(other)
    if not words or not other_words:
        return ()
    shared = " ".join(sorted(words & other_words))
    first = f"{shared} {' '.join(sorted(words - other_words))}".strip()
    second = f"{shared} {' '.join(sorted(other_words - words))}".strip()
    return (shared, first), (shared, second), (first, second)


@lru_cache(maxsize=1 << 16)
def _words(text: str) -> frozenset[str]:
    return frozenset(_NO_WORD.sub(" ", text.translate(_LATIN_1)).lower().split())


def _ratio(first: str, second: str) -> int:
    if not first or not second:
        return 0
    return 100 if first == second else round(100 * SequenceMatcher(None, first, second).ratio())


def _may_match(first: str, second: str) -> bool:
    """Return whether two texts share enough letters, in any order, to reach the limit."""
    total = len(first) + len(second)
    if not first or not second or round(200 * min(len(first), len(second)) / total) <= MATCH_ABOVE:
        return False
    shared = (Counter(first) & Counter(second)).total()
    return round(200 * shared / total) > MATCH_ABOVE
