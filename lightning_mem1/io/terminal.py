"""What may be printed: text from outside must not act on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text with control characters (but newlines) written out, so that none reaches a terminal.

    >>> printable("red\\x1b[2J")
    'red\\\\x1b[2J'
    """
    return "".join(c if c == "\n" or c.isprintable() else repr(c)[1:-1] for c in text)
