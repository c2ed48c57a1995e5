"""What a generated document is about: the facts that answer its question, in order, and rivals that do not.

Kinds, in the manner of RULER (arXiv 2404.06654) and of the conflict resolution of MemoryAgentBench (arXiv 2507.05257):

```
needle      The room of Odo Lin is 417.                          What is the room of Odo Lin?               417
conflict    the same fact two to four times, each time another   the same                                   the last one
hops        The home of Odo Lin is Torham. The river of Torham   What is the river of the home of Odo Lin?  Sella
            is Sella.
tracking    Vault A holds 417. Vault B holds what vault A holds. Which vaults hold 417?                     A B
counting    A ship from Torham arrives. (one to six times)       How many ships from Torham arrive?         their number
```

One who reads once and keeps only what the question names can answer every question: facts that build on each other come
in that order. `needle` and `conflict` ask alike, so nothing but the end of the document says that a value is the last.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from lightning_mem1.environments.reading import facts
from lightning_mem1.environments.reading.facts import Draw

Kind = Literal["needle", "conflict", "hops", "tracking", "counting"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Story:
    """The part of a document that matters.

    Attributes:
        facts: Sentences that answer the question, in the order in which they have to come.
        question: What is asked.
        answers: Accepted answers.
        rival: Draws a sentence that looks like the facts and says nothing about what is asked.
    """

    facts: tuple[str, ...]
    question: str
    answers: tuple[str, ...]
    rival: Draw


def story(kind: Kind, rng: random.Random) -> Story:
    """Draw a story of a kind."""
    return _TELLERS[kind](rng)


def _needle(rng: random.Random) -> Story:
    return _told(rng, 1)


def _conflict(rng: random.Random) -> Story:
    return _told(rng, rng.randint(2, 4))


def _told(rng: random.Random, times: int) -> Story:
    """A fact that is given several times, each time with another value; the last one counts."""
    name, attribute = facts.person(rng), rng.choice(list(facts.PERSONAL))
    values = _different(rng, facts.PERSONAL[attribute], times)
    told = tuple(facts.FACT.format(attribute, name, value) for value in values)
    rival = _without((f" {attribute} of {name} ",), _rival_fact(name))
    return Story(told, facts.ASKS.format(attribute, name), (values[-1],), rival)


def _hops(rng: random.Random) -> Story:
    name, home, attribute = facts.person(rng), facts.town(rng), rng.choice(list(facts.LOCAL))
    value = facts.LOCAL[attribute](rng)
    told = (facts.FACT.format("home", name, home), facts.FACT.format(attribute, home, value))
    rival = _without((f" home of {name} ", f" {attribute} of {home} "), _rival_fact(name))
    return Story(told, facts.CHAIN.format(attribute, "home", name), (value,), rival)


def _rival_fact(name: str) -> Draw:
    """Other people's facts, those of towns, and now and then another fact of the same person."""

    def draw(rng: random.Random) -> str:
        local = rng.random() < 0.3
        attributes = facts.LOCAL if local else facts.PERSONAL
        attribute = rng.choice(list(attributes))
        subject = facts.town(rng) if local else name if rng.random() < 0.1 else facts.person(rng)
        return facts.FACT.format(attribute, subject, attributes[attribute](rng))

    return draw


def _tracking(rng: random.Random) -> Story:
    count = rng.randint(2, 4)
    names, value = _different(rng, facts.vault, count), facts.number(rng)
    told = [facts.HOLDS.format(names[0], value)]
    told += [facts.HOLDS_AS.format(names[n], names[rng.randrange(n)]) for n in range(1, count)]

    def draw(rng: random.Random) -> str:
        one, two = facts.vault(rng), facts.vault(rng)
        return facts.HOLDS_AS.format(one, two) if rng.random() < 0.5 else facts.HOLDS.format(one, facts.number(rng))

    rival = _without((value, *names), draw)
    return Story(tuple(told), facts.ASKS_VAULTS.format(value), (" ".join(names),), rival)


def _counting(rng: random.Random) -> Story:
    home, count = facts.town(rng), rng.randint(1, 6)
    rival = _without((home,), lambda rng: facts.ARRIVES.format(facts.town(rng)))
    return Story((facts.ARRIVES.format(home),) * count, facts.ASKS_COUNT.format(home), (str(count),), rival)


def _without(words: tuple[str, ...], draw: Draw) -> Draw:
    """Draws again while a sentence says something about what is asked."""

    def drawn(rng: random.Random) -> str:
        while True:
            sentence = draw(rng)
            if not any(word in sentence for word in words):
                return sentence

    return drawn


def _different(rng: random.Random, draw: Draw, count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[draw(rng)] = None
    return list(found)


_TELLERS: dict[Kind, Callable[[random.Random], Story]] = {
    "needle": _needle,
    "conflict": _conflict,
    "hops": _hops,
    "tracking": _tracking,
    "counting": _counting,
}
