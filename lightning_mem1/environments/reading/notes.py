"""What the scripted reader keeps: a kind of notes for each kind of question, read from a state and from a document."""

from __future__ import annotations

import re
from typing import Protocol

from lightning_mem1.environments.reading import facts

UNKNOWN = "?"
_VALUE = r"(\w+(?: \w+)*)"
_HOLDS = r"Vault (\w+ \w+) holds (?:what vault (\w+ \w+) holds|(\d+))\."


class Notes(Protocol):
    """What is known about one question."""

    @property
    def known(self) -> bool:
        """Whether there is an answer."""
        ...

    @property
    def answer(self) -> str:
        """The answer as far as it is known."""
        ...

    @property
    def written(self) -> str:
        """The internal state."""
        ...

    def recall(self, state: str) -> None:
        """Take in what an earlier state says."""
        ...

    def read(self, text: str) -> None:
        """Take in a part of the document."""
        ...


def notes_on(question: str) -> Notes:
    """Empty notes for a question.

    Raises:
        ValueError: the question is none of `stories`.
    """
    for template, kind in _ASKED:
        if found := re.fullmatch(_pattern(template), question.strip()):
            return kind(*found.groups())
    raise ValueError(f"the scripted reader reads generated questions only, got '{question}'")


class Facts:
    """One fact, or two where the first one names the subject of the second."""

    def __init__(self, *asked: str) -> None:
        *attributes, name = asked  # the last attribute is looked up first
        self.attributes, self.name = attributes[::-1], name
        self.values: list[str] = []

    @property
    def known(self) -> bool:
        return len(self.values) == len(self.attributes)

    @property
    def answer(self) -> str:
        return self.values[-1] if self.known else UNKNOWN

    @property
    def written(self) -> str:
        subjects = [self.name, *self.values]
        told = zip(self.attributes, subjects, [*self.values, UNKNOWN], strict=False)
        return "; ".join(f"the {attribute} of {subject} is {value}" for attribute, subject, value in told)

    def recall(self, state: str) -> None:
        self._look_up(state, newest=False)

    def read(self, text: str) -> None:
        self._look_up(text, newest=True)

    def _look_up(self, text: str, newest: bool) -> None:
        """Fill in values in their order; in a document the last word on a fact replaces what was known."""
        for place, attribute in enumerate(self.attributes):
            subject = [self.name, *self.values][place] if place <= len(self.values) else None
            if subject is None:
                return
            found = re.findall(rf"[Tt]he {attribute} of {re.escape(subject)} is {_VALUE}", text)
            if found and (newest or place == len(self.values)):
                self.values[place:] = [found[-1], *(self.values[place + 1 :] if self._same(place, found[-1]) else [])]

    def _same(self, place: int, value: str) -> bool:
        return place < len(self.values) and self.values[place] == value


class Vaults:
    """The vaults that hold a number, in the order of the document: ``417 is in Silent Harbor, Red Door``."""

    def __init__(self, value: str) -> None:
        self.value, self.names = value, list[str]()

    @property
    def known(self) -> bool:
        return bool(self.names)

    @property
    def answer(self) -> str:
        return " ".join(self.names)

    @property
    def written(self) -> str:
        return f"{self.value} is in {', '.join(self.names) or UNKNOWN}"

    def recall(self, state: str) -> None:
        _, found, names = state.partition(f"{self.value} is in ")
        self.names = names.split(", ") if found and names != UNKNOWN else []

    def read(self, text: str) -> None:
        for name, same_as, number in re.findall(_HOLDS, text):
            if (same_as in self.names or number == self.value) and name not in self.names:
                self.names.append(name)


class Count:
    """How many ships came from a town: ``ships from Torham 3``."""

    def __init__(self, town: str) -> None:
        self.town, self.number = town, 0

    @property
    def known(self) -> bool:
        return self.number > 0

    @property
    def answer(self) -> str:
        return str(self.number)

    @property
    def written(self) -> str:
        return f"ships from {self.town} {self.number}"

    def recall(self, state: str) -> None:
        found = re.search(rf"ships from {re.escape(self.town)} (\d+)", state)
        self.number = int(found[1]) if found else 0

    def read(self, text: str) -> None:
        self.number += text.count(facts.ARRIVES.format(self.town))


def _pattern(template: str) -> str:
    return re.escape(template).replace(r"\{\}", "([^?]+?)")


_ASKED: tuple[tuple[str, type[Facts] | type[Vaults] | type[Count]], ...] = (
    (facts.CHAIN, Facts),
    (facts.ASKS, Facts),
    (facts.ASKS_VAULTS, Vaults),
    (facts.ASKS_COUNT, Count),
)
