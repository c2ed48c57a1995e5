"""How long a text is, and how a document is cut into parts.

No tokenizer is asked: a word or a punctuation mark counts as one token, so that a task is the same for every policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

_TOKEN = re.compile(r"\w+|[^\w\s]")
END = "The end."  # the last line of the last part


def num_tokens(text: str) -> int:
    """Words and punctuation marks.

    >>> num_tokens("The room of Odo Lin is 417.")
    8
    """
    return sum(1 for _ in _TOKEN.finditer(text))


def parts(pieces: Iterable[str], size: int) -> list[str]:
    """Pack pieces of text (sentences, paragraphs) into parts of at most `size` tokens, in order.

    ```
    parts(["a b", "c d", "e"], 3)  ->  ["a b", "c d e"]
    ```

    Args:
        pieces: The document. Each keeps its place; one that is longer than a part is cut between words.
        size: Tokens of a part.

    Returns:
        The parts, at least one; nothing is lost but spaces at the cuts.
    """
    packed: list[list[str]] = [[]]
    used = 0
    for piece in pieces:
        for short in _cut(piece, size):
            length = num_tokens(short)
            if packed[-1] and used + length > size:
                packed.append([])
                used = 0
            packed[-1].append(short)
            used += length
    return [" ".join(part) for part in packed]


def _cut(piece: str, size: int) -> Iterator[str]:
    """A piece, in pieces of at most `size` tokens where it is longer."""
    tokens = list(_TOKEN.finditer(piece))
    for first in range(0, len(tokens), size):
        chosen = tokens[first : first + size]
        start = 0 if first == 0 else chosen[0].start()
        behind = tokens[first + size].start() if first + size < len(tokens) else len(piece)
        yield piece[start:behind].strip()


def shown(parts: Sequence[str], number: int) -> str:
    """Part `number` (from 0) as the agent reads it: where it is, its text, and the end where it is the last."""
    last = f"\n{END}" if number == len(parts) - 1 else ""
    return f"Part {number + 1} of {len(parts)}\n{parts[number]}{last}"
