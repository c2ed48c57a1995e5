"""The sentences of generated documents: those that matter, and those that fill.

One wording for every fact, so that a small policy can copy it, and so that nothing but the words themselves says which
fact is asked about.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from lightning_mem1.environments.qa.encyclopedia.names import (
    ADJECTIVES,
    ANIMALS,
    FIRST,
    JOBS,
    NOUNS,
    PERSON_END,
    PRODUCTS,
    RIVER_END,
    START,
    TOWN_END,
)

Draw = Callable[[random.Random], str]


def person(rng: random.Random) -> str:
    """``Odo Lindahl``."""
    return f"{rng.choice(FIRST)} {rng.choice(START)}{rng.choice(PERSON_END)}"


def town(rng: random.Random) -> str:
    """``Torham``."""
    return rng.choice(START) + rng.choice(TOWN_END)


def river(rng: random.Random) -> str:
    """``Sella``."""
    return rng.choice(START) + rng.choice(RIVER_END)


def number(rng: random.Random) -> str:
    """A whole number from 100 to 999."""
    return str(rng.randint(100, 999))


def vault(rng: random.Random) -> str:
    """``Silent Harbor``: what holds a number."""
    return f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"


def _one_of(words: list[str]) -> Draw:
    return lambda rng: rng.choice(words)


# what is told of a person, and of a town: attribute -> how its value is drawn
PERSONAL: dict[str, Draw] = {
    "room": number,
    "home": town,
    "job": _one_of(JOBS),
    "pet": _one_of(ANIMALS),
    "trade": _one_of(PRODUCTS),
}
LOCAL: dict[str, Draw] = {"river": river, "mayor": person, "founder": person}

FACT, ASKS = "The {} of {} is {}.", "What is the {} of {}?"
CHAIN = "What is the {} of the {} of {}?"
HOLDS, HOLDS_AS, ASKS_VAULTS = "Vault {} holds {}.", "Vault {} holds what vault {} holds.", "Which vaults hold {}?"
ARRIVES, ASKS_COUNT = "A ship from {} arrives.", "How many ships from {} arrive?"
FILLERS = (
    "Rain falls on {town} all day.",
    "Nobody in {town} speaks of the {noun}.",
    "The road to {town} is long and dry.",
    "A {adjective} {noun} lies by the {river}.",
    "In spring the {river} is high.",
    "The shops of {town} sell {product}.",
    "{person} waits for a letter.",
    "{person} walks along the {river}.",
)


def filler(rng: random.Random) -> str:
    """A sentence that nobody asks about."""
    return rng.choice(FILLERS).format(
        town=town(rng),
        noun=rng.choice(NOUNS).lower(),
        adjective=rng.choice(ADJECTIVES).lower(),
        river=river(rng),
        product=rng.choice(PRODUCTS),
        person=person(rng),
    )
