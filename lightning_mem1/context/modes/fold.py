"""Memory mode ``fold``: the policy works on a subtask in a branch, of which only its message stays.

After Context-Folding (arXiv 2510.11967). The process rewards of its FoldGRPO are options of ``model.shaping``:
`main_penalty` for turns of the main thread once it is long, `failed_penalty` for actions that fail. Left out is the
reward for staying within the subtask, which takes a language model as a judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lightning_mem1.context.memory import Asked, MemoryMode, Runs, whole
from lightning_mem1.context.tags import ParsedTurn, Tags
from lightning_mem1.types import Directive, Turn

BRANCH, RETURN = "branch", "return"


@dataclass(frozen=True)
class Fold(MemoryMode):
    """Every turn but those of branches that have ended: the turn that opened one and the one that returned stay.

    With prompt P, where A1 is ``branch[...]`` and A3 is ``return[...]``::

        (A0, I0) (A1, I1) (A2, I2)              P A0 I0 A1 I1 A2 I2      in the branch
        (A0, I0) (A1, I1) (A2, I2) (A3, I3)     P A0 I0 A1 I1 A3 I3      back in the main thread

    There is no branch inside a branch. To branch in one, or to return outside of one, makes a turn invalid.
    """

    word: ClassVar[str] = "fold"
    actions: ClassVar[tuple[str, ...]] = (BRANCH, RETURN)

    def context(self, turns: Sequence[Turn]) -> Runs:
        """The main thread, and the branch that is open."""
        main, branch = _threads(turns)
        return whole([*main, *branch])

    def aside(self, turns: Sequence[Turn]) -> bool:
        """Whether a branch is open."""
        return bool(_threads(turns)[1])

    def parse(self, turns: Sequence[Turn], written: ParsedTurn) -> Asked:
        """``branch[what for]`` outside of a branch, ``return[message]`` in one."""
        named = self.own_action(written)
        if named is None:
            return Asked()
        inside, (name, argument) = self.aside(turns), named
        if not argument.strip():
            return Asked(problem=f"{name}: expected words in {name}[...], got nothing")
        if name == BRANCH and inside:
            return Asked(problem="branch: expected the main thread, got a branch inside a branch; return first")
        if name == RETURN and not inside:
            return Asked(problem="return: expected an open branch to return from, got the main thread")
        if name == BRANCH:
            return Asked(Directive(name), reply=f"The branch is open; end it by {RETURN}[message].", page=False)
        return Asked(Directive(name), reply="Back in the main thread.")

    def about(self, tags: Tags) -> str:
        """How to branch and to return."""
        return (
            "You see this message and your earlier turns. For a subtask write "
            f"{tags.written(BRANCH, 'what is to be done')}. What you do in that branch is dropped when you end it by "
            f"{tags.written(RETURN, 'what was found')}, whose message stays. There is no branch inside a branch."
        )


def _threads(turns: Sequence[Turn]) -> tuple[list[Turn], list[Turn]]:
    """The turns of the main thread, and those of the branch that is open with the one that opened it first."""
    main: list[Turn] = []
    branch: list[Turn] = []
    for turn in turns:
        name = turn.directive.name if turn.directive else ""
        if name == RETURN and branch:
            main, branch = [*main, branch[0], turn], []
        elif branch or name == BRANCH:
            branch.append(turn)
        else:
            main.append(turn)
    return main, branch
