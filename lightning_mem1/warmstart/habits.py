"""What a scripted expert does for the memory mode that it plays in, besides what it does for its task.

The experts of the worlds write turns as in `mem1`: each state holds all that they need. A mode that offers actions of
its own, or that asks for a range in each state, would never be used by them. A habit adds that use, and nothing else:

    fold         opens a branch, works on the next things in it, and returns with what it found
    edit         deletes what it has read once a few turns are in view: its state has noted what they say
    multiscale   rewrites the latest turn as a block, and now and then all blocks as one
    recall       fetches its last whole turn back when a broken one took its place

Turns of the first two, and of `recall`, cost a turn each. They have the state of the turn that comes next, so that a
policy only copies it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from lightning_mem1.context.memory import MemoryMode
from lightning_mem1.context.modes.edit import DELETE, Edit
from lightning_mem1.context.modes.fold import BRANCH, RETURN, Fold
from lightning_mem1.context.modes.multiscale import MultiScale
from lightning_mem1.context.modes.recall import RECALL, Recall
from lightning_mem1.context.tags import Tags
from lightning_mem1.context.turn_numbers import write_numbers

SPARE_TURNS = 2  # so many are left for the task itself
TURNS_IN_VIEW = 3  # before what was read is deleted
BLOCKS = 3  # before they become one


@dataclass(frozen=True)
class Progress:
    """How far a turn of an expert is.

    Attributes:
        done: How many things of its task are settled before it: questions answered, parts read.
        ahead: What comes next in a few words; empty where nothing does.
        found: What was found since so many things were settled, in a few words.
    """

    done: int
    ahead: str
    found: Callable[[int], str]


@dataclass(frozen=True)
class Subtasks:
    """How a world's task falls into parts.

    Attributes:
        progress: The text of an expert's turn -> how far it is.
        in_branch: Things that are settled in a branch.
    """

    progress: Callable[[str], Progress]
    in_branch: int


@dataclass
class Habit:
    """That of modes which ask nothing of the policy but what it writes anyway; the others add to it.

    Args:
        tags: Names of the blocks, the mode's own actions among them.
    """

    tags: Tags
    number: int = field(default=0, init=False)  # of the next turn
    lost: bool = field(default=False, init=False)  # the last whole turn left the context behind a broken one
    fetches: ClassVar[bool] = False  # whether `before` brings back what is lost

    def before(self, turn: str, turns_left: int) -> str:
        """A turn for the memory that comes before one of the expert; empty for none."""
        return ""

    def dressed(self, turn: str) -> str:
        """A turn of the expert as it is written in this mode."""
        return turn

    def wrote(self, own: bool, whole: bool, counted: bool) -> None:
        """Take note of a turn: whether it is the habit's own, was not broken off, and has a number."""
        self.number += counted

    def _instead(self, turn: str, action: str, argument: str) -> str:
        """The turn with another action, spaced as the expert spaces."""
        closing = self.tags.state_closing
        state, _, _ = turn.partition(closing)
        space = " " if state.startswith(f"{self.tags.state_opening} ") and self.tags.actions else ""
        return f"{state}{closing}{self.tags.written(action, f'{space}{argument}')}"


@dataclass
class Folding(Habit):
    """Works in branches."""

    subtasks: Subtasks
    opened: int | None = field(default=None, init=False)  # what was done when the branch began
    _next: int | None = field(default=None, init=False)

    def before(self, turn: str, turns_left: int) -> str:
        now = self.subtasks.progress(turn)
        self._next = self.opened
        if self.opened is None:
            if not now.ahead or turns_left <= SPARE_TURNS + 2:
                return ""
            self._next = now.done
            return self._instead(turn, BRANCH, now.ahead)
        if turns_left <= SPARE_TURNS or (now.ahead and now.done - self.opened < self.subtasks.in_branch):
            return ""
        self._next = None
        return self._instead(turn, RETURN, now.found(self.opened))

    def wrote(self, own: bool, whole: bool, counted: bool) -> None:
        super().wrote(own, whole, counted)
        if own and whole:
            self.opened = self._next


@dataclass
class Editing(Habit):
    """Deletes all turns in view; the state of the turn that deletes them says what is worth keeping."""

    view: list[int] = field(default_factory=list, init=False)

    def before(self, turn: str, turns_left: int) -> str:
        if len(self.view) < TURNS_IN_VIEW or turns_left <= SPARE_TURNS:
            return ""
        return self._instead(turn, DELETE, write_numbers(self.view))

    def wrote(self, own: bool, whole: bool, counted: bool) -> None:
        if own and whole:
            self.view = []
        if counted:
            self.view.append(self.number)
        super().wrote(own, whole, counted)


@dataclass
class Rewriting(Habit):
    """Names in each state the turns that it rewrites: those that no block covers yet, or all."""

    blocks: int = field(default=0, init=False)
    uncovered: int = field(default=0, init=False)

    def dressed(self, turn: str) -> str:
        if not self.number:
            return turn
        first, opening = self._first(), self.tags.state_opening
        numbers = f"{first}-{self.number - 1}" if first < self.number - 1 else f"{first}"
        space = " " if turn.startswith(f"{opening} ") else ""
        return f"{opening}{space}[{numbers}] {turn.removeprefix(opening).lstrip()}"

    def wrote(self, own: bool, whole: bool, counted: bool) -> None:
        if whole and self.number:
            self.blocks = self.blocks + 1 if self._first() else 1
            self.uncovered = self.number
        super().wrote(own, whole, counted)

    def _first(self) -> int:
        return self.uncovered if self.blocks < BLOCKS else 0


@dataclass
class Recalling(Habit):
    """Fetches the last whole turn when it was lost."""

    last: int = field(default=0, init=False)
    fetches: ClassVar[bool] = True

    def before(self, turn: str, turns_left: int) -> str:
        if not self.lost or turns_left <= SPARE_TURNS:
            return ""
        state, space = self.tags.state_opening, " " if self.tags.actions else ""
        fetched = self.tags.written(RECALL, f"{space}{self.last}")
        return f"{state}{space}turn {self.last}{self.tags.state_closing}{fetched}"

    def wrote(self, own: bool, whole: bool, counted: bool) -> None:
        if whole and not own:
            self.last = self.number
        super().wrote(own, whole, counted)


def habit(mode: MemoryMode, tags: Tags, subtasks: Subtasks | None) -> Habit:
    """The habit of a memory mode.

    Args:
        mode: The memory mode.
        tags: The world's, without the mode's own actions.
        subtasks: How the task falls into parts; None for one that does not: no branch is opened in it.
    """
    tags = tags.with_actions(mode.actions)
    if isinstance(mode, Fold) and subtasks:
        return Folding(tags, subtasks)
    if isinstance(mode, Recall) and not mode.staged:
        return Recalling(tags)
    found: dict[type[MemoryMode], type[Habit]] = {Edit: Editing, MultiScale: Rewriting}
    return found.get(type(mode), Habit)(tags)
