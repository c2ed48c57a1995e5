"""Tags, and the one action of a turn.

Everything here is text. What the policy sees is built from ids (`contexts.py`); these functions only make the pieces
that are tokenised once, and read the turns that come back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

from lightning_mem1.io.terminal import printable as printable


@dataclass(frozen=True)
class ParsedTurn:
    """A turn's text in its parts: `action` is None when it is malformed, and `problem` then says why."""

    internal_state: str
    action: str | None
    problem: str = ""


@dataclass(frozen=True)
class Tags:
    """Names of the blocks.

    Args:
        internal_state: What the policy writes for its later self (``<summary>`` in the shop, ``<think>`` in QA).
        action: The one action of a turn.
        information: The environment's reply.
        actions: Where the tag itself says what is done (``<search>`` or ``<answer>`` in QA): the names, the final one
            last, in place of `action`; the environment then gets ``search[...]`` or ``answer[...]``.
    """

    internal_state: str = "summary"
    action: str = "answer"
    information: str = "state"
    actions: tuple[str, ...] = ()
    mark_ends: ClassVar[str] = ">"  # the characters that may be behind the name in one of `marks`

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the action tags, the one that may end an episode last."""
        return tuple(self.actions) or (self.action,)

    @property
    def state_opening(self) -> str:
        """What begins an internal state."""
        return f"<{self.internal_state}>"

    @property
    def state_closing(self) -> str:
        """What ends an internal state."""
        return f"</{self.internal_state}>"

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end a turn."""
        return tuple(f"</{name}>" for name in self.names)

    @property
    def marks(self) -> tuple[str, ...]:
        """Names of all tags that mean something, which no text from outside may hold."""
        return (self.internal_state, self.information, *self.names)

    @property
    def shape(self) -> str:
        """How a prompt shows what an action looks like."""
        return " or ".join(f"<{name}>...</{name}>" for name in self.names)

    def with_actions(self, names: Sequence[str]) -> Tags:
        """The same with further actions, such as those of a memory mode, where the tags name the actions.

        >>> QA_TAGS.with_actions(["recall"]).names, Tags().with_actions(["recall"]).names
        (('recall', 'search', 'answer'), ('answer',))
        """
        return replace(self, actions=(*names, *self.actions)) if self.actions else self

    def written(self, name: str, argument: str = "...") -> str:
        """How an action is written.

        >>> QA_TAGS.written("recall", "2"), Tags().written("recall", "2")
        ('<recall>2</recall>', '<answer>recall[2]</answer>')
        """
        tag, text = (name, argument) if self.actions else (self.action, f"{name}[{argument}]")
        return f"<{tag}>{text}</{tag}>"

    def action_of(self, text: str) -> tuple[str | None, str]:
        """The one action in a turn's text, None where it is malformed, and why it is."""
        found = [(name, block.strip()) for name in self.names for block in _blocks(text, name)]
        if len(found) != 1:
            return None, f"expected exactly one {self.shape}, got {len(found)}"
        name, action = found[0]
        if not action:
            return None, f"expected an action inside <{name}>, got nothing"
        return (f"{name}[{action}]" if self.actions else action), ""

    def is_one_action(self, text: str) -> bool:
        """Whether a text is an action and nothing else but spaces."""
        names = "|".join(map(re.escape, self.names))
        return re.fullmatch(rf"\s*<({names})>{self.plain}+</\1>\s*", text, flags=re.DOTALL) is not None

    @property
    def plain(self) -> str:
        """A regular expression for one character that begins no tag."""
        return rf"(?:(?!</?(?:{_alternatives(self.marks)})>).)"

    @property
    def words(self) -> str:
        """A regular expression for what may be before an action where it has no internal state."""
        return f"{self.plain}*"


QA_TAGS = Tags("think", "answer", "information", ("search", "answer"))


def parse_turn(text: str, tags: Tags) -> ParsedTurn:
    """Take one internal state and exactly one action out of a turn.

    A state that is closed without having been opened begins with the turn: its prompt opened it.

    >>> parse_turn("<summary>red</summary><answer>click[red]</answer>", Tags())
    ParsedTurn(internal_state='red', action='click[red]', problem='')
    """
    action, problem = tags.action_of(text)
    return ParsedTurn(_state(text, tags), action, problem)


def read_action(action: str) -> tuple[str, str] | None:
    """Name and argument of an action ``name[argument]``; None when it is none.

    >>> read_action("search[red [shoes]]")
    ('search', 'red [shoes]')
    """
    found = re.fullmatch(r"(\w+)\[(.*)\]", action, flags=re.DOTALL)
    return (found[1], found[2]) if found else None


def exact_format(text: str, tags: Tags, staged: bool = False) -> bool:
    """True for one internal state and then one action, with nothing around them but spaces and no tag inside.

    With `staged`, for reasoning without a tag and then one action.

    >>> exact_format("<summary>red</summary><answer>click[red]</answer>", Tags())
    True
    >>> exact_format("<answer>click[red]</answer>", Tags()), exact_format("<answer>click[red]</answer>", Tags(), True)
    (False, True)
    """
    state = re.escape(tags.internal_state)
    before = tags.words if staged else rf"\s*<{state}>{tags.plain}*</{state}>\s*"
    found = re.match(before, text, flags=re.DOTALL)
    return found is not None and tags.is_one_action(text[found.end() :])


def _state(text: str, tags: Tags) -> str:
    opening, closing = tags.state_opening, tags.state_closing
    if opening not in text and closing in text:
        text = opening + text
    states = _blocks(text, tags.internal_state)
    return states[0].strip().removeprefix(opening).strip() if states else ""


def _blocks(text: str, tag: str) -> list[str]:
    return re.findall(rf"<{re.escape(tag)}>(.*?)</{re.escape(tag)}>", text, flags=re.DOTALL)


def escape_tags(text: str, tags: Tags) -> str:
    """Make every tag inside `text` harmless: ``</state>`` in a product title cannot end an information block."""
    return _tag_start(tags.mark_ends, *tags.marks).sub("\u2039", text)


@lru_cache(maxsize=64)
def _tag_start(ends: str, *names: str) -> re.Pattern[str]:
    # at most one way to read a run of spaces: two in a row would take the square of its length
    return re.compile(rf"<(?=\s*(?:/\s*)?(?:{_alternatives(names)})\s*[{ends}]|\|)", flags=re.IGNORECASE)


def _alternatives(names: Iterable[str]) -> str:
    """Any of the tag names as a regular expression, longest first."""
    return "|".join(map(re.escape, sorted(set(names), key=lambda name: (-len(name), name))))
