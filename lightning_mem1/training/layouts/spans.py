"""Which layouts there are, and where scored tokens are in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightning_mem1.checks import check_choice
from lightning_mem1.context.memory import MemoryMode
from lightning_mem1.context.modes.mem1 import Mem1

LAYOUTS = ("tree", "rows", "stitched", "official")


StateEnd = Callable[[Sequence[int]], int]  # a turn's action ids -> how many of them are its internal state with tags


def check_layout(layout: str, memory: MemoryMode = Mem1()) -> None:  # noqa: B008
    """Raise ValueError when `layout` is not a layout, or not one of a memory mode."""
    check_choice("layout", layout, LAYOUTS, "model.layout")
    if layout == "official" and not isinstance(memory, Mem1):
        raise ValueError(
            f"layout official knows one memory mode: expected mem1, got '{memory}'; set model.memory or model.layout"
        )


@dataclass(frozen=True)
class ScoredSpan:
    """Where a turn's action tokens stand: `start` counts from the segment's first token."""

    trajectory: int
    turn: int
    start: int
    length: int
