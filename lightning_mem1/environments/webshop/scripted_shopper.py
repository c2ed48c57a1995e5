"""A scripted shopper that writes MEM1 turns: faultless in format and copying, fallible in its decisions.

It sees what a policy in memory mode ``mem1`` sees: the instruction, its own previous turn and the last reply. All
it knows about earlier turns is what it wrote into its summary. A policy cloned from it starts as a mixture of good
and bad decisions that RL can sharpen.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lightning_mem1.checks import SHARE, Ranges
from lightning_mem1.context.tags import Tags, parse_turn
from lightning_mem1.environments.webshop.page_reader import Seen, Wanted, read_instruction, read_page


@dataclass(frozen=True)
class ShopperSkill:
    """How well a novice decides; every number is a probability.

    Attributes:
        choice: Opens the result that fits best; otherwise any on the page, the upper ones more often.
        option: Begins to choose options, and then chooses every wanted one; otherwise leaves them all alone or, now and
            then, begins with another value. What it has begun it finishes: a policy cloned from it knows how, and has
            only to learn that it should.
        recover: Goes back to the results when an item lacks a wanted value.
        browse: Takes a useless detour where one is possible.
        query: Searches for the wanted words with the options; otherwise without them.
        miss: Clicks a wanted value that the item lacks, never twice in a row. That is no valid turn: a warm start does
            not clone it, but how the shopper continues after it.
    """

    choice: float = 0.5
    option: float = 0.75
    recover: float = 0.3
    browse: float = 0.1
    query: float = 0.6
    miss: float = 0.0
    ranges: ClassVar[Ranges] = dict.fromkeys(("choice", "option", "recover", "browse", "query", "miss"), SHARE)


SLIP = 0.05  # of the items whose options it would leave alone, this part gets another value for the first one
RANK_POINTS = 2.5  # what the first place on a page is worth next to `Wanted.fit`
EXPERT_SHOPPER = ShopperSkill(choice=1.0, option=1.0, recover=1.0, browse=0.0, query=1.0)


class ScriptedShopper:
    """Writes one turn at a time; keeps nothing between turns but its random generator."""

    def __init__(self, rng: random.Random, skill: ShopperSkill | None = None, tags: Tags | None = None) -> None:
        self.rng = rng
        self.skill = skill or ShopperSkill()
        self.tags = tags or Tags()

    def turn(self, instruction: str, previous: str | None, information: str, turns_left: int) -> str:
        """Write the next turn.

        Args:
            instruction: The shopper's instruction, without "Instruction:".
            previous: Text of the turn before, None in the first one.
            information: The reply to it, or the first page.
            turns_left: Turns left, this one included.

        Returns:
            ``<summary>...</summary><answer>...</answer>``, in the names of the tags.
        """
        wanted, page = read_instruction(instruction), read_page(information)
        memory = self._memory(previous)
        if page.kind == "search":
            plan, action = self._search(wanted)
        elif page.kind == "results":
            plan, action = self._open(wanted, page, memory, turns_left)
        elif page.kind == "item":
            plan, action = self._item(wanted, page, memory, turns_left)
        else:
            plan, action = "go back", "click[< prev]"
        here = f"at {memory.at}; " if memory.at and page.kind in ("item", "text") else ""
        read = "read; " if memory.read and here else ""
        # the instruction stays in sight, so what is wanted need not be written down again
        summary = f"tried {' '.join(memory.tried) or 'none'}; {here}{read}{plan}"
        name, _, argument = action.removesuffix("]").partition("[")
        written = self.tags.written(name, argument)
        return f"{self.tags.state_opening}{summary}{self.tags.state_closing}{written}"

    def _memory(self, previous: str | None) -> _Memory:
        """Read back the previous turn: the summary, and the item that its click opened."""
        if previous is None:
            return _Memory([], None, False, None)
        turn = parse_turn(previous, self.tags)
        parts = turn.internal_state.split("; ")
        tried = next((part.split()[1:] for part in reversed(parts) if part.startswith("tried ")), [])
        at = next((part.split()[1] for part in reversed(parts) if re.fullmatch(r"at \S+", part)), None)
        if parts[-1] == "open one":
            at = (turn.action or "")[len("click[") : -1]
        read = "read" in parts or parts[-1] == "read features"
        chosen = re.match(r"choose ([^:]+): ", parts[-1]) if turn.action else None
        return _Memory([each for each in tried if each != "none"], at, read, chosen[1] if chosen else None)

    def _search(self, wanted: Wanted) -> tuple[str, str]:
        # a run of the instruction's own words: a small model has only to copy on
        query = wanted.full if self.rng.random() < self.skill.query else wanted.base
        return "search", f"search[{_plain(query)}]"

    def _open(self, wanted: Wanted, page: Seen, memory: _Memory, turns_left: int) -> tuple[str, str]:
        fresh = [result for result in page.results if result[0] not in memory.tried]
        needed = 2 + len(wanted.options)
        if self.rng.random() < self.skill.browse / 2 and turns_left > needed + 2:
            if "click[next >]" in page.actions and self.rng.random() < 0.7:
                return "next page", "click[next >]"
            return "search again", "click[back to search]"
        if not fresh:
            more = "click[next >]" in page.actions
            return ("next page", "click[next >]") if more else ("search again", "click[back to search]")
        if self.rng.random() < self.skill.choice:
            fits = [wanted.fit(title, price) + RANK_POINTS / (rank + 1) for rank, (_, title, price) in enumerate(fresh)]
            chosen = fresh[fits.index(max(fits))]
        else:
            chosen = self.rng.choices(fresh, [1 / (rank + 1) for rank in range(len(fresh))])[0]
        return "open one", f"click[{chosen[0]}]"

    def _item(self, wanted: Wanted, page: Seen, memory: _Memory, turns_left: int) -> tuple[str, str]:
        pending, lacking = _pending(wanted, page)
        if turns_left <= 1:
            return "buy", "click[buy now]"
        spare = turns_left - len(pending) - 1
        missed = memory.chosen is not None and memory.chosen not in page.selected
        untouched = not page.selected and not missed
        if untouched and lacking and spare > len(wanted.options) + 2 and self.rng.random() < self.skill.recover:
            memory.tried += [memory.at] if memory.at else []
            memory.at = None
            return "go back", "click[< prev]"
        features = "click[features]" in page.actions
        if untouched and features and not memory.read and spare > 2 and self.rng.random() < self.skill.browse:
            return "read features", "click[features]"
        # who never misses draws nothing here, and plays as if there were no such skill
        if lacking and spare > 2 and not missed and self.skill.miss and self.rng.random() < self.skill.miss:
            name, value = self.rng.choice(lacking)
            return f"choose {name}: {value}", f"click[{value}]"
        if pending:
            name, value = pending[0]
            if not untouched or self.rng.random() < self.skill.option:
                return f"choose {name}: {value}", f"click[{value}]"
            others = [each for each in page.choices[name] if each != value]
            if others and self.rng.random() < SLIP:
                other = self.rng.choice(others)
                return f"choose {name}: {other}", f"click[{other}]"
        return "buy", "click[buy now]"


@dataclass
class _Memory:
    """What a summary carries: items given up, the item that is open, whether its features were read, the option that
    was chosen last."""

    tried: list[str]
    at: str | None
    read: bool
    chosen: str | None


def _pending(wanted: Wanted, page: Seen) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the wanted choices behind the last one made, and those that cannot be made here."""
    names = list(page.choices)
    last = max((names.index(name) for name in page.selected), default=-1)
    pending = []
    for name in names[last + 1 :]:
        value = _value(wanted, name, page.choices[name])
        if value is not None:
            pending.append((name, value))
    lacking = [each for each in wanted.options if _value(wanted, each[0], page.choices.get(each[0], ())) is None]
    return pending, lacking


def _value(wanted: Wanted, name: str, values: Sequence[str]) -> str | None:
    """Return the value that the instruction names for an option: exactly, or for free text the longest it mentions."""
    if wanted.options:
        asked = next((value for key, value in wanted.options if key == name), None)
        return next((value for value in values if value in (asked, f"{name}: {asked}")), None)
    named = [value for value in values if re.search(rf"(?<![\w-]){re.escape(value)}(?![\w-])", wanted.text)]
    return max(named, key=len, default=None)


def _plain(text: str) -> str:
    """Drop what the action syntax would misread."""
    return " ".join(re.sub(r"[\[\]]", " ", text).split())
