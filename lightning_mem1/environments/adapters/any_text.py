"""Gymnasium's space of texts, for texts of any characters; needs the extra ``gym``."""

from __future__ import annotations

import string
from typing import Any

from gymnasium.spaces import Text


class AnyText(Text):
    """Texts of any characters; samples are printable ASCII."""

    def __init__(self, max_length: int, **settings: Any) -> None:
        super().__init__(max_length, min_length=0, charset=string.printable, **settings)

    def contains(self, x: Any) -> bool:
        """Return whether `x` is a text that is not too long."""
        return isinstance(x, str) and len(x) <= self.max_length
