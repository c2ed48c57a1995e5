"""Memory mode ``window``: the last few turns (truncation, a baseline of the MEM1 paper, arXiv 2506.15841)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lightning_mem1.context.memory import MemoryMode, Runs, check_window, whole
from lightning_mem1.types import Turn


@dataclass(frozen=True)
class Window(MemoryMode):
    """The last `window` turns. With ``window: 1`` it is `mem1`.

    Args:
        window: Turns that stay, at least 1.
    """

    window: int = 2
    word: ClassVar[str] = "window"

    def __post_init__(self) -> None:
        check_window(self.window)

    def context(self, turns: Sequence[Turn]) -> Runs:
        """The last `window` turns."""
        return whole(turns[-self.window :])
