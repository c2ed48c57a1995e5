"""Reads what a shopper sees: the instruction, and the pages of the shop as text (``strict=False``)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

_PRICE = re.compile(r",? and price lower than ([\d.]+) dollars\W*$")
_OPTIONS = re.compile(r"^(.*) with ([^:,]+: .*)$", re.DOTALL)
_NEXT_OPTION = re.compile(r", and (?=[^:,]+: )")
_REQUEST = re.compile(
    r"^(?:please |can you |could you )*(?:find me|show me|i need|i am looking for|i'm looking for|looking for|i want|"
    r"i would like(?: to buy)?|i'd like|shopping for|i'm after|help me find)(?: to buy| to find)?(?: an?| some| the)? "
)
_JOINTS = re.compile(r"(?:,|\.)? (?:that (?:is|are|has|have)|which (?:is|are|has)|with|also|and|for)(?: an?| the)? ")
_RESULT = re.compile(r"^(.*) \$([\d.]+) \[(\S+)\]$")
_CHOICES = re.compile(r"^([^\[\]]+): (\[.*\])$")


@dataclass(frozen=True)
class Wanted:
    """What an instruction asks for.

    Attributes:
        phrases: Product and attributes, e.g. ``("slim fit men's jeans", "machine wash")``.
        options: (option name, value) pairs.
        price: The most it may cost, None for no bound.
        text: The instruction in lower case.
        base: Its words without the request ("find me"), options and price.
        full: The same with the options.
    """

    phrases: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    price: float | None
    text: str
    base: str = ""
    full: str = ""

    def fit(self, title: str, price: float) -> float:
        """Score a result: one point per pair of neighbouring words, half a point per word, two for the price."""
        found = _words(title)
        pairs = set(zip(found, found[1:], strict=False))
        points = 0.0
        for phrase in self.phrases:
            words = _words(phrase)
            points += 0.5 * len(set(words) & set(found))
            points += sum(pair in pairs for pair in zip(words, words[1:], strict=False))
        return points + (2.0 if self.price is None or price <= self.price else 0.0)

    def summary(self) -> str:
        """Return the compressed form, e.g. ``"slim fit jeans, machine wash; color black; under 50"``."""
        parts = [", ".join(self.phrases), *(f"{name} {value}" for name, value in self.options)]
        return "; ".join([*parts, *([] if self.price is None else [f"under {self.price:g}"])])


@lru_cache(maxsize=4096)
def read_instruction(instruction: str) -> Wanted:
    """Take an instruction apart.

    >>> read_instruction("Find me hand wash jeans with slim fit with color: red, and size: 6, and price lower than 40.00 dollars").summary()
    'hand wash jeans, slim fit; color red; size 6; under 40'
    """  # noqa: E501
    text = instruction.strip().lower()
    found = _PRICE.search(text)
    base, price = (text[: found.start()], float(found[1])) if found else (text, None)
    full = _REQUEST.sub("", base.strip(" ."))
    options: list[tuple[str, str]] = []
    if split := _OPTIONS.match(base):
        base = split[1]
        for each in _NEXT_OPTION.split(split[2]):
            name, _, value = each.partition(": ")
            options.append((name, value))
    base = _REQUEST.sub("", base.strip(" ."))
    phrases = (phrase.strip(" .,") for phrase in _JOINTS.sub(", ", base).split(", "))
    return Wanted(tuple(phrase for phrase in phrases if phrase), tuple(options), price, text, base, full)


@dataclass(frozen=True)
class Seen:
    """A page as read.

    Attributes:
        kind: ``"search"``, ``"results"``, ``"item"`` or ``"text"`` (a description or a list of features).
        results: (id, title, price) of the products listed.
        choices: Option name -> what can be clicked for it.
        selected: Option names that have a value.
        actions: The last line.
    """

    kind: str
    results: tuple[tuple[str, str, float], ...] = ()
    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    selected: tuple[str, ...] = ()
    actions: str = ""


def read_page(information: str) -> Seen:
    """Read a page of the shop."""
    lines = information.splitlines()
    if lines and lines[0].startswith("Invalid action: "):
        lines = lines[1:]
    actions = lines[-1] if lines else ""
    if lines[:1] == ["Search page"]:
        return Seen("search", actions=actions)
    if lines and re.match(r"Page \d+ of \d+$", lines[0]):
        results = tuple((hit[3], hit[1], float(hit[2])) for hit in map(_RESULT.match, lines) if hit)
        return Seen("results", results=results, actions=actions)
    selected = next((line for line in lines if line.startswith("Selected: ")), None)
    if selected is None or "click[buy now]" not in actions:
        return Seen("text", actions=actions)
    choices = {
        hit[1]: tuple(hit[2][1:-1].split("] [")) for hit in map(_CHOICES.match, lines[2:-2]) if hit
    }  # fmt: skip
    chosen = selected.removeprefix("Selected: ")
    names = tuple(name for name in choices if re.search(rf"(?:^|, ){re.escape(name)}: ", chosen))
    return Seen("item", choices=choices, selected=names, actions=actions)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+(?:'[a-z]+)?", text.lower())
