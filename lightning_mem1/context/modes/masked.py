"""Memory mode ``masked``: old replies give way to a short note, what the policy wrote stays (arXiv 2508.21433)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lightning_mem1.context.memory import MemoryMode, Runs, check_window, whole
from lightning_mem1.context.tags import Tags
from lightning_mem1.types import Turn


@dataclass(frozen=True)
class Masked(MemoryMode):
    """Every turn; of those older than the last `window` a fixed note N replaces the reply.

    With prompt P, turns (A0, I0) to (A3, I3) and ``window: 2`` the next context is ``P A0 N A1 N A2 I2 A3 I3``. The
    rollout leaves the note's ids on each turn.

    Args:
        window: Turns whose replies stay, at least 1; the paper's is 10.
        note: What replaces them; empty for nothing at all.
    """

    window: int = 10
    note: str = "(left out)"
    word: ClassVar[str] = "masked"

    def __post_init__(self) -> None:
        check_window(self.window)

    def context(self, turns: Sequence[Turn]) -> Runs:
        """What was written in older turns, each with the note, and the last `window` turns."""
        older, newer = turns[: -self.window], turns[-self.window :]
        noted = [(turn.opening_ids, turn.action_ids, turn.note_ids if turn.information_ids else []) for turn in older]
        return [*(run for runs in noted for run in runs), *whole(newer)]

    def left_out(self) -> str:
        """The note."""
        return self.note

    def about(self, tags: Tags) -> str:
        """That older replies are left out."""
        return (
            "You see this message, all that you wrote, and the replies to your latest turns. Older replies are left "
            "out, so write down what you will need of a reply."
        )
