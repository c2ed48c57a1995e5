"""Memory mode ``none``: no history at all, to show what memory is good for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lightning_mem1.context.memory import MemoryMode, Runs
from lightning_mem1.types import Turn


@dataclass(frozen=True)
class NoHistory(MemoryMode):
    """The latest reply without the turn that asked for it.

    With prompt P and turns (A0, I0), (A1, I1), the next context is ``P I1``.
    """

    word: ClassVar[str] = "none"

    def context(self, turns: Sequence[Turn]) -> Runs:
        """The latest reply."""
        return [turn.information_ids for turn in turns[-1:]]
