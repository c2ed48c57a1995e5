"""Questions over a generated encyclopedia, and how to read them again.

One hop asks for a fact of a named thing. A bridge names a thing only as "the maker of The Silent Harbor", so that its
own passage cannot be found before the first one is read; a comparison needs two passages that are both named. Splits
are parted by the thing that a question names first, so that validation asks about things that training never named.

The wording ``topic`` asks as one types into a search box, "Odo Lin home town?": questions then differ from their first
words on, and a small model that copies one by looking back two tokens does not slip from it into another.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from lightning_mem1.environments.qa.composition import BEFORE, NUMBER
from lightning_mem1.environments.qa.encyclopedia.world import RELATIONS, Encyclopedia, Relation, Thing
from lightning_mem1.environments.qa.question import Question
from lightning_mem1.types import Split

Wording = Literal["question", "topic"]
WORDINGS: tuple[Wording, ...] = get_args(Wording)
OF_KIND = {kind: [r for r in RELATIONS if r.kind == kind] for kind in ("person", "town", "work", "company", "event")}
COMPARED = {
    "person": ("born", "Who was born first, {} or {}?"),
    "town": ("settled", "Which was settled first, {} or {}?"),
    "work": ("year", "Which is dated first, {} or {}?"),
    "company": ("opened", "Which opened first, {} or {}?"),
}
FOLLOW_UP = re.compile(r"(?:the answer to question|answer) (\d+)", re.IGNORECASE)


def split_of(name: str) -> Split:
    """Eight of ten things are for training, one each for validation and test."""
    tenth = hashlib.blake2b(name.lower().encode(), digest_size=2).digest()[0] % 10
    return "val" if tenth == 8 else "test" if tenth == 9 else "train"


def questions(
    world: Encyclopedia, split: Split, hops: Sequence[int] = (1, 2, 3), wording: Wording = "question"
) -> list[Question]:
    """All questions of a split, in a fixed order; those with `needs` are follow-ups for interdependent tasks.

    Comparisons have names at their end only and are worded as questions always.
    """
    rng = random.Random(f"quiz/{world.seed}/{split}")
    asked: list[Question] = []
    for thing in world.things.values():
        if split_of(thing.name) == split:
            asked += _about(world, thing, rng, wording)
    return [question for question in asked if question.hops in hops]


def _about(world: Encyclopedia, thing: Thing, rng: random.Random, wording: Wording) -> Iterator[Question]:
    relations = OF_KIND[thing.kind]
    for relation in relations:
        yield _one_hop(thing, relation, wording)
    bridges = [(first, second) for first in relations if first.target for second in OF_KIND[first.target]]
    for chain in rng.sample(bridges, min(3, len(bridges))):
        yield from _bridge(world, thing, chain, wording)
    first, second = rng.choice([pair for pair in bridges if pair[1].target])
    yield from _bridge(world, thing, (first, second, rng.choice(OF_KIND[second.target])), wording)
    if thing.kind in COMPARED and (other := _rival(world, thing, rng)):
        yield _comparison(thing, other)


def _asks(relation: Relation, name: str, wording: Wording) -> str:
    return relation.topic.format(name) if wording == "topic" else relation.question.format(name)


def _one_hop(thing: Thing, relation: Relation, wording: Wording) -> Question:
    name = thing.nickname or thing.name
    return Question(
        f"{thing.name}/{relation.name}",
        _asks(relation, name, wording),
        accepted(thing.facts[relation.name], relation),
        hops=1,
        kind="alias" if thing.nickname else "fact",
        support=(thing.name,),
    )


def _bridge(world: Encyclopedia, thing: Thing, chain: Sequence[Relation], wording: Wording) -> Iterator[Question]:
    """The question over all relations of the chain, and for two relations the same as a follow-up."""
    support = [thing.name]
    for relation in chain[:-1]:
        support.append(world.things[support[-1]].facts[relation.name])
    value = world.things[support[-1]].facts[chain[-1].name]
    if len(set(support)) < len(support):  # back where it began
        return
    noun = thing.name
    for relation in chain[:-1]:
        noun = f"the {relation.noun} of {noun}"
    name, last = "/".join([thing.name, *(relation.name for relation in chain)]), chain[-1]
    answers, hops = accepted(value, last), len(chain)
    yield Question(name, _asks(last, noun, wording), answers, hops=hops, kind="bridge", support=tuple(support))
    if hops == 2:
        head = f"{thing.name}/{chain[0].name}"
        text = _asks(last, f"answer {NUMBER}" if wording == "topic" else BEFORE, wording)
        yield Question(f"{name}/after", text, answers, "", 1, "follow-up", tuple(support[1:]), needs=head)


def _comparison(thing: Thing, other: Thing) -> Question:
    relation, text = COMPARED[thing.kind]
    first = min(thing, other, key=lambda each: int(each.facts[relation]))
    ids = f"{thing.name}/{other.name}/{relation}"
    answers = accepted(first.name, None)
    return Question(ids, text.format(thing.name, other.name), answers, "", 2, "comparison", (thing.name, other.name))


def _rival(world: Encyclopedia, thing: Thing, rng: random.Random) -> Thing | None:
    relation = COMPARED[thing.kind][0]
    other = rng.choice(world.of_kind(thing.kind))
    return None if other.facts[relation] == thing.facts[relation] else other


def accepted(value: str, relation: Relation | None) -> tuple[str, ...]:
    """A value and its other names: a river with its word, a work without "The", a person with an initial."""
    words = value.split()
    if relation and relation.name == "river":
        return value, f"river {value}", f"{value} river"
    if relation and relation.target == "person":
        return value, f"{words[0][0]}. {words[-1]}"
    return (value,)


@dataclass(frozen=True)
class Asked:
    """A question as it is read.

    Attributes:
        names: The thing it starts from; two for a comparison. ``"#1"`` stands for the answer to question 1.
        relations: The facts to look up, one after the other; of a comparison the one to compare.
    """

    names: tuple[str, ...]
    relations: tuple[Relation, ...]


@lru_cache(maxsize=4096)
def read_question(text: str) -> Asked | None:
    """Take a question apart; None when it is none of this file's.

    >>> read_question("Which town is the maker of The Red Door from?").names
    ('The Red Door',)
    >>> read_question("Odo Lin home town?").names
    ('Odo Lin',)
    """
    for kind, (name, template) in COMPARED.items():
        if found := _match(template, text):
            relation = next(r for r in OF_KIND[kind] if r.name == name)
            return Asked(found, (relation,))
    for relation in RELATIONS:
        if found := _match(relation.question, text):
            return _unfold(found[0], (relation,))
    for relation in sorted(RELATIONS, key=lambda each: -len(each.noun)):  # "opening year" before "year"
        if found := _match(relation.topic, text):
            return _unfold(found[0], (relation,))
    return None


def _unfold(noun: str, relations: tuple[Relation, ...]) -> Asked:
    """``the maker of X`` before a relation of people: X, and one relation more."""
    if before := FOLLOW_UP.fullmatch(noun):
        return Asked((f"#{before[1]}",), relations)
    for relation in RELATIONS:
        prefix = f"the {relation.noun} of "
        if relation.target == relations[0].kind and noun.lower().startswith(prefix):
            return _unfold(noun[len(prefix) :], (relation, *relations))
    return Asked((noun,), relations)


def _match(template: str, text: str) -> tuple[str, ...] | None:
    found = _pattern(template).fullmatch(text.strip())
    return found.groups() if found else None


@lru_cache(maxsize=64)
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{\}", "(.+?)"), re.IGNORECASE)
