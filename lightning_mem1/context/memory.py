"""What a memory mode is: the rule for what the policy sees next, given the turns so far.

A mode only chooses *which ids stay*; it never decodes, cuts or rewrites them. `modes` holds those of the package, a
file each; `settings.memory_mode` makes one of a word, of a dotted name, or of either with the mode's own settings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from lightning_mem1.checks import Range, check_number
from lightning_mem1.context.encoder import ContextEncoder
from lightning_mem1.types import Turn

Runs = list[Sequence[int]]  # ids that stay, run after run
Kind = Literal["act", "memory"]  # of a call of the policy
Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class MemoryMode(ABC):
    """The rule for what the policy sees next. Its fields are its settings: keys below ``model.memory``.

    A mode is a value and remembers nothing between calls: contexts follow from the turns alone, so that training
    derives the ones that the rollout had. It is given the turns that later contexts may hold: one that was malformed
    and retried (`Turn.retried`) is not among them.

    A mode of your own is a subclass in a file of your own, named in a YAML by its dotted name::

        @dataclass(frozen=True)
        class Plan(MemoryMode):            # plan.py; model.memory: {mode: plan.Plan, first: 2}
            first: int = 1

            def context(self, turns):
                return whole([*turns[: self.first], *turns[self.first :][-1:]])

    Attributes:
        word: What a YAML calls a mode of the package; empty for any other, which goes by its dotted name.
        staged: Whether a call of its own writes the memory (kind ``memory``), so that acts write none.
    """

    word: ClassVar[str] = ""
    staged: ClassVar[bool] = False

    @abstractmethod
    def context(self, turns: Sequence[Turn]) -> Runs:
        """Runs of ids that stay after these turns, in the order of time; the prompt is always before them.

        Hand on the turns' own lists where you can (`whole` does): what a context shares with others is then not copied.
        """

    def due(self, turns: Sequence[Turn], prompt_tokens: int = 0) -> Kind:
        """What kind of call comes after these turns. Unless overridden: in a staged mode a memory after each act.

        Args:
            turns: The turns so far; after a memory an act comes.
            prompt_tokens: Tokens of the prompt, for a mode that keeps to a budget.
        """
        return "memory" if self.staged and turns and turns[-1].kind == "act" else "act"

    def annotator(self, encoder: ContextEncoder) -> Callable[[Turn], None] | None:
        """What the rollout does to each act when its reply has come, to leave on the turn what later contexts need.

        Args:
            encoder: Text to ids and back, the policy's; a mode has no other way to either.
        """
        return None

    @property
    def name(self) -> str:
        """What a YAML and every report call it."""
        return self.word or f"{type(self).__module__}.{type(self).__qualname__}"

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values that `settings.memory_mode` makes the same mode of."""
        return {"mode": self.name, **{field.name: getattr(self, field.name) for field in fields(self)}}

    def __str__(self) -> str:
        return self.name


def whole(turns: Sequence[Turn]) -> Runs:
    """The turns with their openings and replies."""
    return [ids for turn in turns for ids in (turn.opening_ids, turn.action_ids, turn.information_ids)]


def standing(turns: Sequence[Turn]) -> list[Turn]:
    """The turns that later contexts may hold: those that were not retried."""
    return [turn for turn in turns if not turn.retried]


def check_window(window: int) -> None:
    """Raise ValueError when a mode is to keep or to retrieve less than one turn."""
    check_number("model.memory.window", window, Range(1))
