"""Memory mode ``summary``: acting and remembering are calls of their own.

A running summary as in MemAgent (arXiv 2507.02259) and IterResearch (arXiv 2511.07327), rewritten after each reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lightning_mem1.context.memory import MemoryMode, Runs, whole
from lightning_mem1.types import Turn


@dataclass(frozen=True)
class Summary(MemoryMode):
    """The memory and the latest reply; for the call that rewrites it, the old memory, the latest act and its reply.

    A turn that acts writes no memory, and one that writes the memory does not act. Both are the same policy's, and each
    may be as long as a turn of `mem1`. With prompt P, the memory M0 that was written after I0, and the opening m that
    is put before a memory::

        (A0, I0)              P A0 I0              M0 is to be written
        (A0, I0) M0           P m M0 I0            A1 is to be taken
        (A0, I0) M0 (A1, I1)  P m M0 A1 I1         M1 is to be written
    """

    word: ClassVar[str] = "summary"

    @property
    def staged(self) -> bool:
        """Every act is followed by a call that writes the memory."""
        return True

    def context(self, turns: Sequence[Turn]) -> Runs:
        """The last memory, then the latest reply, with its act where a memory is due."""
        acts, memories = ([turn for turn in turns if turn.kind == kind][-1:] for kind in ("act", "memory"))
        if self.due(turns) == "memory":
            return whole([*memories, *acts])
        return [*whole(memories), *(turn.information_ids for turn in acts)]
