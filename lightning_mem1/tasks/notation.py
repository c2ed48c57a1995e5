"""How a researcher's internal state keeps its answers: written by the scripted one, and read again by it.

    every    the red door by odo lin; 1 by odo lin; 2 ?; 3 ?                every question has its place from the start
    next     the red door by odo lin | 1 odo lin 2 who leads vex foods?     what is answered, and what is searched for
             vex foods led by ivan kor | 1 odo lin 2 ivan kor 3             at the end the number that no question has

In `every` the first turn has to know how many questions there are, and each later one has to find an open place's
question in the prompt. In `next` every step is local: what is copied stands in the turn before, only the question of
the number that was just written is looked up in the prompt, and where there is none the answer is due.

What `next` leaves out, a small model would trip over. It copies by finding the last two tokens again: behind
``; 4 in`` it cannot tell which of the answers that begin with "in" is meant, behind ``haven;`` which number is due.
Without links and separators nearly any two neighbours stand once in a list, and the bar parts it from the note, which
ends in an answer too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from lightning_mem1.tasks.lookup import GIVEN_UP, LINK, UNKNOWN, Memory

Notation = Literal["every", "next"]
NOTATIONS = ("every", "next")
BAR = " | "  # between note and list, in `next`


def check_notation(notation: str, key: str) -> None:
    """Raise ValueError when `notation`, found under `key`, does not exist."""
    if notation not in NOTATIONS:
        raise ValueError(f"unknown notation: expected {' or '.join(NOTATIONS)}, got '{notation}'; set {key}")


def write_state(memory: Memory, questions: Sequence[str], notation: str, final: bool) -> str:
    """The internal state.

    Args:
        memory: What is known.
        questions: The questions, without their numbers.
        notation: See above.
        final: Whether the turn answers; `next` then spells out no open question.
    """
    if notation == "every":
        return "; ".join([memory.note, *(_place(memory, number) for number in range(len(questions)))])
    known = memory.answers.index(UNKNOWN) if UNKNOWN in memory.answers else len(questions)
    listed = [f"{number} {answer}" for number, answer in enumerate(memory.answers[:known], memory.first)]
    due = "" if final else f" {questions[known].lower()}"
    return f"{memory.note}{BAR}{' '.join([*listed, str(memory.first + known)])}{due}"


def _place(memory: Memory, number: int) -> str:
    """An answer with the word before it; an open question with what is searched for next, if that was just read."""
    known, link, told = memory.answers[number], memory.links.get(number, LINK), memory.first + number
    if known != UNKNOWN:
        return f"{told} {link} {known}"
    just_read = number == memory.answers.index(UNKNOWN) and memory.note.endswith(f" {link} {memory.query}")
    return f"{told} {UNKNOWN} {link} {memory.query}" if just_read else f"{told} {UNKNOWN}"


def final_answers(memory: Memory, notation: str) -> list[str]:
    """The answers as they are given; in `next` those behind the last known one are left out."""
    if notation == "every" or UNKNOWN not in memory.answers:
        return [GIVEN_UP if each == UNKNOWN else each for each in memory.answers]
    return memory.answers[: memory.answers.index(UNKNOWN)] or [GIVEN_UP]


def read_state(text: str, num_questions: int, first: int) -> Memory:
    """What a state in either notation says; `first` is the number of the first question."""
    read, separator = (_read_next, BAR) if BAR in text else (_read_every, "; ")
    note, _, listed = text.partition(separator)
    memory = Memory(note, [UNKNOWN] * num_questions, first=first)
    read(listed, memory)
    return memory


def _read_every(listed: str, memory: Memory) -> None:
    """Fill in the answers of a list ``1 by odo lin; 2 ?``: a question's place tells which it is."""
    for number, place in enumerate(listed.split("; ")[: len(memory.answers)]):
        known = re.fullmatch(r"\d+ ([^?]\S*) (.*[^?])", place)
        if known:
            memory.links[number], memory.answers[number] = known.groups()


def _read_next(listed: str, memory: Memory) -> None:
    """Fill in the answers of a list ``1 odo lin 2 in which year ...?``: its numbers count up."""
    rest = f" {listed} "
    for place in range(len(memory.answers)):
        _, found, rest = rest.partition(f" {memory.first + place} ")
        answer, more, _ = rest.partition(f" {memory.first + place + 1} ")
        if not found or not more:
            return
        memory.answers[place], rest = answer, rest[len(answer) :]
