"""Whatever an agent sent: each turn carries the ids of its own context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lightning_mem1.context.memory import MemoryMode, Runs, whole
from lightning_mem1.types import Turn


@dataclass(frozen=True)
class Recorded(MemoryMode):
    """The contexts that an agent of somebody else's sent (`Turn.context_ids`), token for token.

    Where a turn carries none, because the loop of this package played it, the context is everything so far, as in
    `full`.
    """

    word: ClassVar[str] = "recorded"

    def context(self, turns: Sequence[Turn]) -> Runs:
        """Every turn and every reply."""
        return whole(turns)
