"""Memory mode ``mem1``: the last turn alone, which holds the memory (MEM1, arXiv 2506.15841, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lightning_mem1.context.memory import MemoryMode, Runs, whole
from lightning_mem1.types import Turn


@dataclass(frozen=True)
class Mem1(MemoryMode):
    """The last turn only: its internal state, its action and the reply.

    With prompt P and turns (A0, I0), (A1, I1), the next context is ``P A1 I1``.
    """

    word: ClassVar[str] = "mem1"

    def context(self, turns: Sequence[Turn]) -> Runs:
        """The last turn."""
        return whole(turns[-1:])
