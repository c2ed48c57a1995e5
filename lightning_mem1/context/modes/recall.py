"""Memory mode ``recall``: turns that have left the context can be fetched back by an action.

Works on top of `mem1` or `compaction`, whose contexts it has. What is fetched is quoted in the reply: information like
any other, made of the ids that the turn had, and it leaves the context as other replies do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

from lightning_mem1.checks import check_choice
from lightning_mem1.context.memory import Asked, Kind, MemoryMode, Runs, acts
from lightning_mem1.context.modes.compaction import Compaction
from lightning_mem1.context.modes.mem1 import Mem1
from lightning_mem1.context.tags import ParsedTurn, Tags
from lightning_mem1.context.turn_numbers import chosen, write_numbers
from lightning_mem1.types import Directive, Turn

RECALL = "recall"
UNDER = ("mem1", "compaction")


@dataclass(frozen=True)
class Recall(MemoryMode):
    """The contexts of another mode, with an action that fetches turns which are in them no more.

    With prompt P, over `mem1`, where A2 is ``recall[0]`` and [A0 I0] is turn 0 inside of a reply::

        (A0, I0) (A1, I1)                               P A1 I1
        (A0, I0) (A1, I1) (A2, [A0 I0])                 P A2 [A0 I0]
        (A0, I0) (A1, I1) (A2, [A0 I0]) (A3, I3)        P A3 I3

    ``recall[0-2, 4]`` fetches several at once; what is longer than ``rollout.max_information_tokens`` loses its end.
    A turn that asks for one that does not exist or is in view is invalid.

    Args:
        over: The mode below, mem1 or compaction.
        budget: The budget of `compaction`.
    """

    over: str = "mem1"
    budget: int = 4096
    word: ClassVar[str] = "recall"
    actions: ClassVar[tuple[str, ...]] = (RECALL,)
    numbered: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("mode to recall in", self.over, UNDER, "model.memory.over")
        Compaction(self.budget)

    @property
    def below(self) -> MemoryMode:
        """The mode whose contexts it has."""
        return Compaction(self.budget) if self.over == "compaction" else Mem1()

    @property
    def staged(self) -> bool:
        """As the mode below."""
        return self.below.staged

    def context(self, turns: Sequence[Turn]) -> Runs:
        """As the mode below."""
        return self.below.context(turns)

    def memory_context(self, turns: Sequence[Turn]) -> Runs:
        """As the mode below."""
        return self.below.memory_context(turns)

    def due(self, turns: Sequence[Turn], prompt_tokens: int = 0) -> Kind:
        """As the mode below."""
        return self.below.due(turns, prompt_tokens)

    def most_tokens(self, prompt_tokens: int) -> int:
        """As the mode below."""
        return self.below.most_tokens(prompt_tokens)

    def parse(self, turns: Sequence[Turn], written: ParsedTurn) -> Asked:
        """``recall[numbers]`` of turns that are not in view."""
        named = self.own_action(written)
        if named is None:
            return Asked()
        seen, played = set(map(id, self.context(turns))), acts(turns)
        dropped = [number for number, turn in enumerate(played) if id(turn.action_ids) not in seen]
        numbers, problem = chosen(named[1], dropped, RECALL)
        if problem:
            return Asked(problem=problem)
        fetched = chain.from_iterable((*played[n].ids, *played[n].information_ids) for n in numbers)
        reply = f"\nEnd of what was fetched: {write_numbers(numbers)}."
        return Asked(Directive(RECALL, numbers), reply=reply, quoted=list(fetched))

    def about(self, tags: Tags) -> str:
        """How to fetch a turn."""
        below = self.below.about(tags) or (
            "You see this message, your previous turn and the reply to it: carry forward whatever you need in your "
            "memory."
        )
        return (
            f"{below} Each reply begins with the number of its turn. Fetch turns that you do not see any more by "
            f"{tags.written(RECALL, '0-2, 4')}."
        )
