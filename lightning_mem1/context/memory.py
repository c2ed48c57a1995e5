"""What a memory mode is: the rule for what the policy sees next, given the turns so far.

A mode only chooses *which ids stay*; it never decodes, cuts or rewrites them. `modes` holds those of the package, a
file each; `settings.memory_mode` makes one of a word, of a dotted name, or of either with the mode's own settings.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, ClassVar, Literal

from lightning_mem1.checks import Range, check_number
from lightning_mem1.context.encoder import ContextEncoder
from lightning_mem1.context.tags import ParsedTurn, Tags
from lightning_mem1.types import Directive, Turn

Runs = list[Sequence[int]]  # ids that stay, run after run
Kind = Literal["act", "memory"]  # of a call of the policy
Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Asked:
    """What a turn asks of its memory, see `MemoryMode.parse`.

    Attributes:
        directive: What is done; the turn keeps it, and later contexts follow from it. None for nothing.
        reply: What the policy reads, where the mode answers in place of the environment, which is then not asked to
            act and shows what it showed; None where the environment carries out the turn's action.
        quoted: Ids that come before that reply, as they are.
        page: Whether that reply shows the environment's page again; False where it stays in view.
        problem: Why it cannot be done, one line: the turn is invalid, nothing is carried out, and the reply says so.
    """

    directive: Directive | None = None
    reply: str | None = None
    quoted: Sequence[int] = ()
    page: bool = True
    problem: str = ""


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
        actions: Names of the actions that the mode itself answers, such as ``recall``: see `parse`.
        numbered: Whether each reply begins with the number of its turn, so that the policy can name turns. It is
            counted from 0 over the acts that a mode is given.
    """

    word: ClassVar[str] = ""
    actions: ClassVar[tuple[str, ...]] = ()
    numbered: ClassVar[bool] = False

    @abstractmethod
    def context(self, turns: Sequence[Turn]) -> Runs:
        """Runs of ids that stay after these turns, in the order of time; the prompt is always before them.

        Hand on the turns' own lists where you can (`whole` does): what a context shares with others is then not copied.
        """

    @property
    def staged(self) -> bool:
        """Whether calls of their own write the memory (kind ``memory``), so that acts write none."""
        return False

    def memory_context(self, turns: Sequence[Turn]) -> Runs:
        """Runs of ids that stay for a call that writes the memory. Unless overridden, those of any other call."""
        return self.context(turns)

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

    def parse(self, turns: Sequence[Turn], written: ParsedTurn) -> Asked:
        """What a turn asks of its memory; unless overridden, nothing. It raises nothing, whatever was written.

        Args:
            turns: Those before it that later contexts may hold.
            written: The turn, which holds an action.
        """
        return Asked()

    def label(self, turns: Sequence[Turn]) -> str:
        """What the reply to the turn after these begins with: its number, where turns are numbered."""
        return f"turn {len(acts(standing(turns)))}\n" if self.numbered else ""

    def own_action(self, written: ParsedTurn) -> tuple[str, str] | None:
        """Name and argument where the action is one of the mode's own; None for one of the environment's."""
        named = re.fullmatch(r"(\w+)\s*\[(.*)\]", written.action or "", flags=re.DOTALL)
        return (named[1], named[2]) if named and named[1] in self.actions else None

    def aside(self, turns: Sequence[Turn]) -> bool:
        """Whether the turn after these is in a branch, whose turns leave the context when it ends."""
        return False

    def left_out(self) -> str:
        """The note that stands for a reply once it is left out; empty where no note does."""
        return ""

    def most_tokens(self, prompt_tokens: int) -> int:
        """Most tokens of a context once turns begin to leave it, in a mode with a budget; 0 where turns alone count."""
        return 0

    def about(self, tags: Tags) -> str:
        """What an explained prompt says of the mode; empty for what it says of modes in general."""
        return ""

    @property
    def name(self) -> str:
        """What a YAML and every report call it."""
        return self.word or f"{type(self).__module__}.{type(self).__qualname__}"

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values that `settings.memory_mode` makes the same mode of."""
        return {"mode": self.name, **{field.name: getattr(self, field.name) for field in fields(self)}}

    @property
    def spelled(self) -> str:
        """Its name with the settings that are not as they are by default: no two different modes share it.

        Made of letters, digits and ``_-./`` alone, which every logger takes: ``compaction budget 512``.
        """
        usual = {field.name: _usual(field) for field in fields(self)}
        given = {
            key: value for key, value in self.settings.items() if key != "mode" and value != usual.get(key, MISSING)
        }
        return re.sub(r"[^\w ./-]", "_", " ".join([self.name, *(f"{key} {value}" for key, value in given.items())]))

    def __str__(self) -> str:
        return self.name


def _usual(field: Field[Any]) -> Any:
    """What a setting is by default."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def whole(turns: Sequence[Turn]) -> Runs:
    """The turns with their openings and replies."""
    return [ids for turn in turns for ids in (turn.opening_ids, turn.action_ids, turn.information_ids)]


def standing(turns: Sequence[Turn]) -> list[Turn]:
    """The turns that later contexts may hold: those that were not retried."""
    return [turn for turn in turns if not turn.retried]


def acts(turns: Sequence[Turn]) -> list[Turn]:
    """Those that act: a mode's numbers count them from 0."""
    return [turn for turn in turns if turn.kind == "act"]


def size(runs: Runs) -> int:
    """Tokens of all runs."""
    return sum(map(len, runs))


def check_window(window: int) -> None:
    """Raise ValueError when a mode is to keep or to retrieve less than one turn."""
    check_number("model.memory.window", window, Range(1))
