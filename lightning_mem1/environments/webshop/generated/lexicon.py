"""The words of the generated catalogue, read from `lexicon.json`.

The file holds five departments of product groups, the option values and the syllables of brand names. Changing a
word changes what every seed generates.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

Words = tuple[str, ...]


@dataclass(frozen=True)
class ProductType:
    """One kind of product: `name` is also its search query; typical prices lie between `low` and `high` dollars."""

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """Product types that share a shelf.

    Attributes:
        path: Middle level of the category path.
        attributes: The attribute phrases that a product of this shelf may have.
        materials: Words for a title, e.g. "cotton".
        modifiers: Words for a title, e.g. "casual".
        options: (option name, its possible values) in order of preference.
        types: The product types.
    """

    path: str
    attributes: Words
    materials: Words
    modifiers: Words
    options: tuple[tuple[str, Words], ...]
    types: tuple[ProductType, ...]


@dataclass(frozen=True)
class Department:
    """A department: the official `category` word, the first level of its paths, words for prose, its groups."""

    name: str
    root: str
    adjectives: Words
    uses: Words
    things: Words
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Lexicon:
    """All departments and the syllables of brand names."""

    departments: tuple[Department, ...]
    onsets: Words
    vowels: Words
    codas: Words
    endings: Words


def _words(text: str) -> Words:
    return tuple(text.split(", "))


def _group(raw: dict[str, Any], values: dict[str, str]) -> Group:
    return Group(
        path=raw["path"],
        attributes=_words(raw["attributes"]),
        materials=_words(raw["materials"]),
        modifiers=_words(raw["modifiers"]),
        options=tuple((name, _words(values[key])) for name, key in raw["options"].items()),
        types=tuple(ProductType(name, low, high) for name, (low, high) in raw["types"].items()),
    )


@cache
def lexicon() -> Lexicon:
    """Read and parse the word file (once)."""
    raw = json.loads(resources.files(__package__).joinpath("lexicon.json").read_text(encoding="utf-8"))
    departments = tuple(
        Department(
            name=each["name"],
            root=each["root"],
            adjectives=_words(each["adjectives"]),
            uses=_words(each["uses"]),
            things=_words(each["things"]),
            groups=tuple(_group(group, raw["values"]) for group in each["groups"]),
        )
        for each in raw["departments"]
    )
    return Lexicon(departments, **{name: _words(text) for name, text in raw["words"].items()})
