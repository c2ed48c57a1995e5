"""A generated encyclopedia: people, towns, works, companies and events with facts that refer to one another.

Everything follows from a seed; another seed has other names and other facts. Many names share a word (namesakes), and a
name is in the passages of others too, so that a question about one thing finds its near misses as well, and a
question over two facts cannot be answered by one search: the thing in the middle is not named in it.

Facts are in the passage behind words of their own ("from", "born in", "worked for"), so that a small model can find
and copy them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from lightning_mem1.checks import SEED, Range, Ranges
from lightning_mem1.environments.qa.encyclopedia.names import JOBS, PRODUCTS, Names
from lightning_mem1.environments.qa.retrieval.passage import Passage

MIN_PASSAGES = 60
SHARES = {"town": 0.1, "person": 0.42, "work": 0.24, "company": 0.13, "event": 0.11}
KINDS_OF_WORK = {"novel": "written", "painting": "painted", "opera": "composed", "film": "directed"}


@dataclass
class EncyclopediaSettings:
    """Which encyclopedia is generated.

    Args:
        num_passages: Its size.
        seed: Draws it: another seed has other names and other facts.
    """

    num_passages: int = 5400
    seed: int = 0
    ranges: ClassVar[Ranges] = {"num_passages": Range(MIN_PASSAGES, 10**7), "seed": SEED}


@dataclass(frozen=True)
class Relation:
    """One kind of fact.

    Attributes:
        kind: What it is about.
        name: Its key in `Thing.facts`.
        phrase: The words before it in the passage.
        noun: What it is called in ``the <noun> of <thing>``.
        question: How it is asked.
        target: The kind of thing that it names; empty for years and words.
    """

    kind: str
    name: str
    phrase: str
    noun: str
    question: str
    target: str = ""

    @property
    def topic(self) -> str:
        """The question as one types it into a search box."""
        return f"{{}} {self.noun}?"


RELATIONS = (
    Relation("person", "home", "from", "home town", "Which town is {} from?", "town"),
    Relation("person", "born", "born in", "birth year", "In which year was {} born?"),
    Relation("person", "employer", "worked for", "employer", "Which company did {} work for?", "company"),
    Relation("person", "spouse", "married", "spouse", "Who married {}?", "person"),
    Relation("town", "region", "town in", "region", "Which region is {} in?"),
    Relation("town", "river", "on the river", "river", "Which river runs through {}?"),
    Relation("town", "settled", "settled in", "settling year", "In which year was {} settled?"),
    Relation("town", "ware", "known for", "main ware", "What is {} known for?"),
    Relation("town", "mayor", "mayor is", "mayor", "Who is the head of {}?", "person"),
    Relation("work", "maker", "by", "maker", "Who made {}?", "person"),
    Relation("work", "year", "dated", "year", "Which year is {} dated?"),
    Relation("work", "setting", "set in", "setting", "Where is {} set?", "town"),
    Relation("work", "publisher", "issued by", "publisher", "Which company issued {}?", "company"),
    Relation("company", "product", "maker of", "product", "What does {} make?"),
    Relation("company", "seat", "based in", "seat", "Where is {} based?", "town"),
    Relation("company", "founder", "founded by", "founder", "Who founded {}?", "person"),
    Relation("company", "opened", "opened in", "opening year", "In which year did {} open?"),
    Relation("company", "leader", "led by", "leader", "Who leads {}?", "person"),
    Relation("event", "host", "held in", "host town", "Where was {} held?", "town"),
    Relation("event", "held", "dated", "date", "In which year was {} held?"),
    Relation("event", "winner", "won by", "winner", "Who won {}?", "person"),
    Relation("event", "sponsor", "paid by", "sponsor", "Which company paid for {}?", "company"),
)


@dataclass
class Thing:
    """Something the encyclopedia has a passage about.

    Attributes:
        kind: person, town, work, company or event.
        name: Title of its passage.
        facts: Relation name -> value as written.
        nickname: A second name of a person, given in the passage; empty for none.
        word: Job of a person, kind of a work.
    """

    kind: str
    name: str
    facts: dict[str, str] = field(default_factory=dict)
    nickname: str = ""
    word: str = ""

    def passage(self) -> Passage:
        """Its passage: one or two sentences."""
        return Passage(self.name, _TELL[self.kind](self, self.facts))


class Encyclopedia:
    """A world of things.

    Args:
        seed: Draws everything.
        num_passages: Number of things, each with one passage.

    Attributes:
        things: Name -> thing, in the order of the passages.
        passages: One per thing.
    """

    def __init__(self, seed: int = 0, num_passages: int = 5400) -> None:
        if num_passages < MIN_PASSAGES:
            raise ValueError(f"an encyclopedia has at least {MIN_PASSAGES} passages, got {num_passages}")
        self.seed = seed
        self.rng = random.Random(f"encyclopedia/{seed}")
        names = Names(self.rng)
        num = {kind: max(6, round(num_passages * share)) for kind, share in SHARES.items()}
        num["person"] += num_passages - sum(num.values())
        self._towns = self._make(num["town"], "town", lambda given: names.town(self._namesake(given, 0.1)))
        self._people = self._make(num["person"], "person", lambda given: names.person(self._namesake(given, 0.35)))
        self._companies = self._make(num["company"], "company", lambda given: names.company())
        works = self._make(num["work"], "work", lambda given: names.work())
        events = self._make(num["event"], "event", lambda given: names.event(self.rng.choice(self._towns).name))
        self._tell_towns([names.river() for _ in self._towns[::3]], [names.region() for _ in range(12)])
        self._tell_people(names)
        self._tell_others(works, events)
        things = [*self._towns, *self._people, *works, *self._companies, *events]
        self.things = {thing.name: thing for thing in things}
        self.passages = [thing.passage() for thing in things]

    def of_kind(self, kind: str) -> list[Thing]:
        """All things of a kind."""
        return [thing for thing in self.things.values() if thing.kind == kind]

    def _make(self, number: int, kind: str, name: Callable[[list[str]], str]) -> list[Thing]:
        given: list[str] = []
        for _ in range(number):
            given.append(name(given))
        return [Thing(kind, each) for each in given]

    def _namesake(self, given: list[str], share: float) -> str | None:
        """The last word of an earlier name now and then."""
        return self.rng.choice(given).split()[-1] if given and self.rng.random() < share else None

    def _tell_towns(self, rivers: list[str], regions: list[str]) -> None:
        for town in self._towns:
            town.facts = {
                "region": self.rng.choice(regions),
                "river": self.rng.choice(rivers),
                "settled": str(self.rng.randint(1100, 1700)),
                "ware": self.rng.choice(PRODUCTS),
                "mayor": self.rng.choice(self._people).name,
            }

    def _tell_people(self, names: Names) -> None:
        self.rng.shuffle(order := list(self._people))
        for one, other in zip(order[::2], order[1::2] or order, strict=False):
            year = self.rng.randint(1720, 1940)
            self._tell_person(one, year, other)
            self._tell_person(other, year + self.rng.randint(-9, 9), one)
        if len(order) % 2:
            self._tell_person(order[-1], 1800, order[0])
        for person in self._people[::8]:
            person.nickname = names.nickname()

    def _tell_person(self, person: Thing, born: int, spouse: Thing) -> None:
        person.word = self.rng.choice(JOBS)
        person.facts = {
            "home": self.rng.choice(self._towns).name,
            "born": str(born),
            "employer": self.rng.choice(self._companies).name,
            "spouse": spouse.name,
        }

    def _tell_others(self, works: list[Thing], events: list[Thing]) -> None:
        for work in works:
            work.word = self.rng.choice(list(KINDS_OF_WORK))
            work.facts = {**self._by("maker", "year"), "setting": self._town(), "publisher": self._company()}
        for company in self._companies:
            facts = {"product": self.rng.choice(PRODUCTS), "seat": self._town(), "leader": self._person()}
            company.facts = facts | self._by("founder", "opened")
        for event in events:
            host = next(town.name for town in self._towns if event.name.startswith(f"{town.name} "))
            event.facts = {"host": host, **self._by("winner", "held"), "sponsor": self._company()}

    def _by(self, who: str, when: str) -> dict[str, str]:
        """Somebody, and a year in which this person was grown up."""
        person = self.rng.choice(self._people)
        return {who: person.name, when: str(int(person.facts["born"]) + self.rng.randint(20, 60))}

    def _town(self) -> str:
        return self.rng.choice(self._towns).name

    def _company(self) -> str:
        return self.rng.choice(self._companies).name

    def _person(self) -> str:
        return self.rng.choice(self._people).name


def _tell_person(thing: Thing, facts: dict[str, str]) -> str:
    known = f", known as {thing.nickname}" if thing.nickname else ""
    return (
        f"{_a(thing.word)} from {facts['home']}{known}, born in {facts['born']}, who worked for {facts['employer']} "
        f"and married {facts['spouse']}."
    )


def _tell_town(thing: Thing, facts: dict[str, str]) -> str:
    return (
        f"A town in {facts['region']} on the river {facts['river']}, settled in {facts['settled']} and known for "
        f"{facts['ware']}. Its mayor is {facts['mayor']}."
    )


def _tell_work(thing: Thing, facts: dict[str, str]) -> str:
    made = KINDS_OF_WORK[thing.word]
    return (
        f"{_a(thing.word)}, {made} by {facts['maker']} and dated {facts['year']}. It is set in {facts['setting']} and "
        f"was issued by {facts['publisher']}."
    )


def _tell_company(thing: Thing, facts: dict[str, str]) -> str:
    return (
        f"A maker of {facts['product']}, based in {facts['seat']}, founded by {facts['founder']} and opened in "
        f"{facts['opened']}. It is led by {facts['leader']}."
    )


def _tell_event(thing: Thing, facts: dict[str, str]) -> str:
    return (
        f"A contest held in {facts['host']} and dated {facts['held']}. It was won by {facts['winner']} and paid by "
        f"{facts['sponsor']}."
    )


def _a(word: str) -> str:
    return f"{'An' if word[0] in 'aeiou' else 'A'} {word}"


_TELL = {
    "person": _tell_person,
    "town": _tell_town,
    "work": _tell_work,
    "company": _tell_company,
    "event": _tell_event,
}
