"""Memory mode ``edit``: the policy deletes earlier turns by an action (MemAct, arXiv 2510.12635)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lightning_mem1.context.memory import Asked, MemoryMode, Runs, whole
from lightning_mem1.context.tags import ParsedTurn, Tags
from lightning_mem1.context.turn_numbers import chosen, write_numbers
from lightning_mem1.types import Directive, Turn

DELETE = "delete"


@dataclass(frozen=True)
class Edit(MemoryMode):
    """Every turn but those that were deleted.

    With prompt P, where A2 is ``delete[0]``::

        (A0, I0) (A1, I1)                        P A0 I0 A1 I1
        (A0, I0) (A1, I1) (A2, I2)               P A1 I1 A2 I2
        (A0, I0) (A1, I1) (A2, I2) (A3, I3)      P A1 I1 A2 I2 A3 I3

    ``delete[0-2, 4: the price was 3]`` deletes several turns at once; the words behind the numbers stay in view with
    the turn that deletes, so it merges what it deletes. Such a turn can be deleted itself, and what it deleted stays
    away. A turn that names one that is not in view is invalid.
    """

    word: ClassVar[str] = "edit"
    actions: ClassVar[tuple[str, ...]] = (DELETE,)
    numbered: ClassVar[bool] = True

    def context(self, turns: Sequence[Turn]) -> Runs:
        """The turns that were not deleted."""
        return whole([turns[number] for number in _left(turns)])

    def parse(self, turns: Sequence[Turn], written: ParsedTurn) -> Asked:
        """``delete[numbers]`` or ``delete[numbers: words]``, of turns that are in view."""
        named = self.own_action(written)
        if named is None:
            return Asked()
        numbers, problem = chosen(named[1].partition(":")[0], _left(turns), DELETE)
        if problem:
            return Asked(problem=problem)
        return Asked(Directive(DELETE, numbers), reply=f"Deleted {write_numbers(numbers)}.")

    def about(self, tags: Tags) -> str:
        """How to delete."""
        return (
            "You see this message and your earlier turns; each reply begins with the number of its turn. Delete turns "
            f"that you do not need any more by {tags.written(DELETE, '0-2, 4: what to keep of them')}."
        )


def _left(turns: Sequence[Turn]) -> list[int]:
    """Numbers of the turns that were not deleted."""
    deleted = {number for turn in turns if turn.directive for number in turn.directive.turns}
    return [number for number in range(len(turns)) if number not in deleted]
