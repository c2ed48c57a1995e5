"""Memory mode ``full``: the whole history (ReAct, arXiv 2210.03629)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lightning_mem1.context.memory import MemoryMode, Runs, whole
from lightning_mem1.types import Turn


@dataclass(frozen=True)
class Full(MemoryMode):
    """Every turn: the context grows with the horizon.

    With prompt P and turns (A0, I0), (A1, I1), the next context is ``P A0 I0 A1 I1``.
    """

    word: ClassVar[str] = "full"

    def context(self, turns: Sequence[Turn]) -> Runs:
        """Every turn."""
        return whole(turns)
