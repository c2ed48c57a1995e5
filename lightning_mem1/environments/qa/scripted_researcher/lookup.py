"""How the scripted researcher reads: passages of the encyclopedia, and what its own memory says is due next."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lightning_mem1.environments.qa.encyclopedia.questions import Asked
from lightning_mem1.environments.qa.encyclopedia.world import Relation

UNKNOWN = "?"
GIVEN_UP = "none"
START = "start"
NOT_FOUND = "nothing on"
LINK = "is"  # stands before an answer that is no fact's value
_PASSAGE = re.compile(r"\d+ (.+?): (.*)")
_AFTER = r"(.+?)(?:,? (?:and|who|known as|born in|worked for|married|on the river|settled in)\b|[,.]|$)"


@dataclass
class Notebook:
    """What the previous turn says: the note, the answers so far with the words before them, and the query.

    `first` is the number of the first question, as the prompt has it; `carried` the entries before it, of questions
    that are no longer asked; `num_given` (a field) how many answers earlier turns have given.
    """

    note: str
    answers: list[str]
    query: str = ""
    links: dict[int, str] = field(default_factory=dict)
    first: int = 1
    carried: str = ""
    num_given: int = 0


def due(asked: Asked, memory: Notebook) -> tuple[str, Relation, bool]:
    """The thing whose passage is due, the fact to read there, and whether more facts follow.

    The note of the previous turn shows how far the chain is: it ends in the name that was searched for next.
    """
    if len(asked.names) == 2:
        first, second = (name.lower() for name in asked.names)
        searched = (second, f"{second} {asked.relations[0].phrase}")
        return second if memory.query in searched else first, asked.relations[0], False
    name = resolve(asked.names[0], memory)
    if memory.note.startswith(NOT_FOUND):
        name_now = memory.note.removeprefix(f"{NOT_FOUND} ")
        return name_now, *_last_but(asked, memory, name_now == name)
    for place, relation in enumerate(asked.relations[:-1]):
        marker = f" {relation.phrase} {memory.query}"
        if memory.query and memory.note.endswith(marker) and memory.query != name:
            return memory.query, asked.relations[place + 1], place + 2 < len(asked.relations)
    return name, asked.relations[0], len(asked.relations) > 1


def _last_but(asked: Asked, memory: Notebook, at_start: bool) -> tuple[Relation, bool]:
    """After a failed search: the query ends in the phrase of the fact that was looked for."""
    if at_start:
        return asked.relations[0], len(asked.relations) > 1
    for place, relation in enumerate(asked.relations):
        if place and memory.query.endswith(f" {relation.phrase}"):
            return relation, place + 1 < len(asked.relations)
    return asked.relations[-1], False


def resolve(name: str, memory: Notebook) -> str:
    """``#1`` is the answer to question 1."""
    if not name.startswith("#"):
        return name.lower()
    place = int(name[1:]) - memory.first
    known = memory.answers[place] if 0 <= place < len(memory.answers) else UNKNOWN
    return GIVEN_UP if known == UNKNOWN else known


def read_passages(information: str) -> list[tuple[str, str]]:
    """(title, text) of each passage of a reply, in lower case."""
    found = (_PASSAGE.fullmatch(line.strip()) for line in information.lower().splitlines())
    return [(each[1], each[2]) for each in found if each]


def fact_in(relation: Relation, text: str) -> str | None:
    """The words behind the fact's phrase in a passage of the encyclopedia; None when it does not hold that fact.

    >>> from lightning_mem1.environments.qa.encyclopedia.world import RELATIONS
    >>> fact_in(RELATIONS[0], "a poet from torham, born in 1801, who worked for ...")
    'torham'
    """
    found = re.search(rf"\b{re.escape(relation.phrase)} {_AFTER}", text)
    return found[1].strip() if found and re.match(_OPENING[relation.kind], text) else None


_OPENING = {
    "person": r"an? ",
    "town": "a town in ",
    "work": r"an? (novel|painting|opera|film), ",
    "company": "a maker of ",
    "event": "a contest ",
}


def is_about(name: str, title: str, text: str) -> bool:
    return name == title or f"known as {name}," in text


def year_in(text: str) -> int:
    found = re.search(r"\d+", text)
    return int(found[0]) if found else 0
