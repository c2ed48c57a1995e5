"""Memory mode ``multiscale``: each turn rewrites a range of what came before as one block (AgentFold, 2510.24699).

Deviations: the internal state of a turn is the block, and begins with its range: ``<summary>[2-4] red costs 3``; one
that names no range rewrites everything, as in `mem1`. The paper's ranges end at the latest turn; here they need not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from lightning_mem1.context.encoder import ContextEncoder
from lightning_mem1.context.internal_state import state_end
from lightning_mem1.context.memory import Asked, MemoryMode, Runs
from lightning_mem1.context.tags import ParsedTurn, Tags
from lightning_mem1.types import Directive, Turn

FOLD = "fold"
_RANGE = re.compile(r"\s*\[\s*([0-9]{1,6})\s*(?:-\s*([0-9]{1,6})\s*)?\]")


@dataclass(frozen=True)
class MultiScale(MemoryMode):
    """Blocks, each an internal state that rewrote a range of turns, the turns that no block covers, and the latest.

    A turn At is its state St and the rest Rt. With prompt P, where S1 rewrites turn 0, S2 turn 1, and S3 turns 0 to 2::

        (A0, I0)                                P A0 I0
        (A0, I0) (A1, I1)                       P S1 R1 I1
        (A0, I0) (A1, I1) (A2, I2)              P S1 S2 R2 I2
        (A0, I0) (A1, I1) (A2, I2) (A3, I3)     P S3 R3 I3

    A range begins where a block begins and ends where one ends; a turn that no block covers is one of its own. A turn
    without a state rewrites nothing. One whose range is none of these is invalid, and rewrites nothing.
    """

    word: ClassVar[str] = "multiscale"
    numbered: ClassVar[bool] = True

    def context(self, turns: Sequence[Turn]) -> Runs:
        """The blocks in the order of what they cover, then the latest turn."""
        return [run for block in blocks(turns) for run in block.runs]

    def parse(self, turns: Sequence[Turn], written: ParsedTurn) -> Asked:
        """The range that the internal state names; everything when it names none."""
        if not turns or not written.internal_state:
            return Asked()
        found = _RANGE.match(written.internal_state)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, len(turns) - 1)
        known = blocks(turns)
        if first > last or first not in {each.first for each in known} or last not in {each.last for each in known}:
            there = ", ".join(str(each) for each in known)
            return Asked(problem=f"{FOLD}: expected a range made of {there}, got [{first}-{last}]")
        return Asked(Directive(FOLD, tuple(range(first, last + 1)), acts=True))

    def annotator(self, encoder: ContextEncoder) -> Callable[[Turn], None]:
        """Leaves on a turn how many of its ids are the state."""
        tag = encoder.format.tags.internal_state

        def annotate(turn: Turn) -> None:
            turn.state_tokens = max(state_end(turn.ids, encoder.decode, tag) - len(turn.opening_ids), 0)

        return annotate

    def about(self, tags: Tags) -> str:
        """How to name a range."""
        state = f"{tags.state_opening}[2-4] what is left of turns 2 to 4{tags.state_closing}"
        return (
            "You see this message, the blocks of memory that you wrote, and the latest turn; each reply begins with "
            f"the number of its turn. Begin your memory with the turns that it takes the place of: {state} replaces "
            "what you see of turns 2 to 4, be it blocks or the latest turn. Without numbers it replaces everything."
        )


@dataclass(frozen=True)
class Block:
    """What is in view of the turns `first` to `last`."""

    first: int
    last: int
    runs: Runs

    def __str__(self) -> str:
        return f"{self.first}-{self.last}" if self.last > self.first else str(self.first)


def blocks(turns: Sequence[Turn]) -> list[Block]:
    """What is in view after some turns, in order; the last one is the latest turn, without its state where that is a
    block."""
    found: list[Block] = []
    for number, turn in enumerate(turns):
        rest: Runs = [turn.opening_ids, turn.action_ids]
        if turn.directive:
            first, last = turn.directive.turns[0], turn.directive.turns[-1]
            state: Runs = [turn.opening_ids, turn.action_ids[: turn.state_tokens]]
            rest = [turn.action_ids[turn.state_tokens :]]
            before, after = [b for b in found if b.last < first], [b for b in found if b.first > last]
            found = [*before, Block(first, last, state), *after]
        found.append(Block(number, number, [*rest, turn.information_ids]))
    return found
