"""Text in the middle of a context: tokenised without the space that some tokenizers put before every text."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

SPACE = "\u2581"  # how sentence-piece vocabularies write a space
_COPIES: WeakKeyDictionary[Any, tuple[int, Any]] = WeakKeyDictionary()  # by tokenizer: its size then, and the copy


def continuing(tokenizer: Any) -> Any:
    """A tokenizer that reads a text as one that continues another; the same tokenizer where that is no difference.

    Sentence-piece tokenizers and some byte-level ones begin each text with a space::

        "<state>red"      _< state > red      as a text
                           < state > red      behind another

    A copy is made once. A space that a tokenizer's own decoder takes out again is no such space and stays.

    Args:
        tokenizer: A transformers tokenizer.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not _begins_with_a_space(backend):
        return tokenizer
    known = _COPIES.get(tokenizer)
    if known is None or known[0] != len(tokenizer):
        known = len(tokenizer), _without_it(copy.deepcopy(tokenizer))
        _COPIES[tokenizer] = known
    return known[1]


def _begins_with_a_space(backend: Any) -> bool:
    pieces = [*_parts(backend.normalizer), *_parts(backend.pre_tokenizer)]
    return any(_prepends(each) or _marks(each) or getattr(each, "add_prefix_space", False) for each in pieces)


def _without_it(tokenizer: Any) -> Any:
    from tokenizers import normalizers

    backend = tokenizer.backend_tokenizer
    normal = _parts(backend.normalizer)
    if any(map(_prepends, normal)):
        backend.normalizer = normalizers.Sequence([each for each in normal if not _prepends(each)])
    for each in _parts(backend.pre_tokenizer):
        if _marks(each):
            each.prepend_scheme = "never"
        elif getattr(each, "add_prefix_space", False):
            each.add_prefix_space = False
    return tokenizer


def _prepends(normalizer: Any) -> bool:
    return getattr(normalizer, "prepend", None) == SPACE


def _marks(pre_tokenizer: Any) -> bool:
    return getattr(pre_tokenizer, "prepend_scheme", "never") != "never"


def _parts(component: Any) -> list[Any]:
    """A component of a tokenizer, or all of those that it is a sequence of."""
    return list(_unpacked(component))


def _unpacked(component: Any) -> Iterator[Any]:
    if component is None:
        return
    if type(component).__name__ != "Sequence":
        yield component
        return
    place = 0
    while True:
        try:
            inner = component[place]
        except IndexError:
            return
        yield from _unpacked(inner)
        place += 1
