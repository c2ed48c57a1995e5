"""How a researcher's internal state keeps its answers: written by the scripted one, and read again by it.

    every    1 by odo lin; 2 ?; 3 ?                 every question has its place from the first turn on
    next     1: by odo lin; 2 who leads vex foods?  what is answered, and the question that is searched for now

In `every` the first turn has to know how many questions there are, and each later one has to find an open place's
question in the prompt. In `next` every step is local: what is copied stands in the turn before, only the question that
follows the last one is looked up in the prompt, and where none follows the answer is due. The colon keeps an answer
apart from a question: behind ``1 in`` a small model that copies would go on with ``which year ...?`` from the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from lightning_mem1.tasks.lookup import GIVEN_UP, LINK, UNKNOWN, Memory

Notation = Literal["every", "next"]
NOTATIONS = ("every", "next")


def check_notation(notation: str, key: str) -> None:
    """Raise ValueError when `notation`, found under `key`, does not exist."""
    if notation not in NOTATIONS:
        raise ValueError(f"unknown notation: expected {' or '.join(NOTATIONS)}, got '{notation}'; set {key}")


def entries(memory: Memory, questions: Sequence[str], notation: str, final: bool) -> list[str]:
    """The answers as the state lists them.

    Args:
        memory: What is known.
        questions: The questions, without their numbers.
        notation: See above.
        final: Whether the turn answers; `next` then lists no open question.
    """
    open_ones = [number for number, answer in enumerate(memory.answers) if answer == UNKNOWN]
    shown = list(range(len(questions)))
    if notation == "next":
        shown = shown[: open_ones[0] + (not final)] if open_ones else shown
    return [_entry(memory, number, questions[number], notation) for number in shown]


def _entry(memory: Memory, number: int, question: str, notation: str) -> str:
    """An answer with the word before it; an open question with what is searched for next, if that was just read."""
    known, link, told = memory.answers[number], memory.links.get(number, LINK), memory.first + number
    if known != UNKNOWN:
        return f"{told}{':' if notation == 'next' else ''} {link} {known}"
    if notation == "next":
        return f"{told} {question.lower()}"
    just_read = number == memory.answers.index(UNKNOWN) and memory.note.endswith(f" {link} {memory.query}")
    return f"{told} {UNKNOWN} {link} {memory.query}" if just_read else f"{told} {UNKNOWN}"


def final_answers(memory: Memory, notation: str) -> list[str]:
    """The answers as they are given; in `next` those behind the last known one are left out."""
    if notation == "every" or UNKNOWN not in memory.answers:
        return [GIVEN_UP if each == UNKNOWN else each for each in memory.answers]
    return memory.answers[: memory.answers.index(UNKNOWN)] or [GIVEN_UP]


def read_entries(listed: Sequence[str], memory: Memory) -> None:
    """Fill in the answers that a state lists, in either notation."""
    for number, entry in enumerate(listed[: len(memory.answers)]):
        known = re.fullmatch(r"\d+:? ([^?]\S*) (.*[^?])", entry)
        if known:
            memory.links[number], memory.answers[number] = known.groups()
