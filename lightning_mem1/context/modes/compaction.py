"""Memory mode ``compaction``: the history grows until it would pass a budget; then a call of its own sums it up.

As in ReSum (arXiv 2509.13313), SUPO (arXiv 2510.06727) and CompactionRL (arXiv 2607.05378). Deviations: the turn that
would pass the budget is not in what is summed up and stays whole behind the summary, so that the call that writes it
keeps to the budget as well; the policy writes the summary itself, where ReSum asks a model of its own. SUPO's masking
of episodes that end without an answer is ``model.credit.mask_overlong``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lightning_mem1.checks import check_least
from lightning_mem1.context.memory import Kind, MemoryMode, Runs, size, whole
from lightning_mem1.context.tags import Tags
from lightning_mem1.types import Turn


@dataclass(frozen=True)
class Compaction(MemoryMode):
    """Every turn, until the next context would pass the budget; from then on the memory and what is newer.

    With prompt P, the opening m of a memory, and a budget that three turns would pass::

        (A0, I0) (A1, I1)                   P A0 I0 A1 I1       A2 is to be taken
        (A0, I0) (A1, I1) (A2, I2)          P A0 I0 A1 I1       M0 is to be written
        (A0, I0) (A1, I1) (A2, I2) M0       P m M0 A2 I2        A3 is to be taken

    A turn that alone passes the budget is summed up too, and nothing stays behind that memory.

    Args:
        budget: Most tokens of a context, prompt included and the turn that is written in it not. A prompt, a memory and
            a turn that are together longer than that are not cut.
    """

    budget: int = 4096
    word: ClassVar[str] = "compaction"

    def __post_init__(self) -> None:
        check_least("model.memory.budget", self.budget, 1)

    @property
    def staged(self) -> bool:
        """A call of its own writes the memory."""
        return True

    def context(self, turns: Sequence[Turn]) -> Runs:
        """The last memory and the turns that it does not sum up."""
        memory, newer = _parts(turns)
        return whole([*memory, *newer])

    def memory_context(self, turns: Sequence[Turn]) -> Runs:
        """The old memory and the turns that are to be summed up."""
        memory, newer = _parts(turns)
        return whole([*memory, *(newer[:-1] or newer)])

    def due(self, turns: Sequence[Turn], prompt_tokens: int = 0) -> Kind:
        """A memory when the next context would pass the budget."""
        acted = turns and turns[-1].kind == "act"
        return "memory" if acted and prompt_tokens + size(self.context(turns)) > self.budget else "act"

    def most_tokens(self, prompt_tokens: int) -> int:
        """The budget."""
        return self.budget

    def about(self, tags: Tags) -> str:
        """That the history is summed up at times."""
        return (
            "You see this message, your memory, and what happened since it was written. When that becomes too long you "
            "are asked to rewrite the memory: whatever it leaves out is lost, but for the latest turn."
        )


def _parts(turns: Sequence[Turn]) -> tuple[list[Turn], list[Turn]]:
    """The last memory, if there is one, and the acts that it does not sum up."""
    memory: list[Turn] = []
    newer: list[Turn] = []
    for turn in turns:
        if turn.kind == "act":
            newer.append(turn)
        else:
            memory, newer = [turn], newer[-1:] if len(newer) > 1 else []
    return memory, newer
