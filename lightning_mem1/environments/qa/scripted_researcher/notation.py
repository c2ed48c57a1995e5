"""How a researcher's internal state keeps its answers: written by the scripted one, and read again by it.

    every    the red door by odo lin; 1 by odo lin; 2 ?; 3 ?                every question has its place from the start
    next     the red door by odo lin; 1 odo lin | 2 who leads vex foods?    what is answered | what is searched for
             vex foods led by ivan kor; 1 odo lin 2 ivan kor | 3            at the end the number that no question has
    react    the red door by odo lin; 1 odo lin | 2 who leads vex foods?    answers stay in the turns that found them
             vex foods led by ivan kor; 2 ivan kor | 3

In `every` the first turn has to know how many questions there are, and each later one has to find an open place's
question in the prompt. In `next` every step is local: the list is copied and one entry longer, the number behind the
bar goes up by one, its question is looked up in the prompt, and where no question has the number the answer is due,
which is the list again (scoring `numbered`).

`react` is for the full history alone: a turn is a thought and an action, as in ReAct (Yao et al. 2022, arXiv
2210.03629), each answer is written down once, and the final one is put together from all turns, as `next` gives it.

A small model copies by finding the last two tokens again. Hence no links and no separators in the list: behind
``; 4 in`` it could not know which of the answers that begin with "in" is meant, behind ``haven;`` which number is due.
And the number of a new answer is the one behind the bar of the turn before, which stands there once: as the number
after the last of the list it would be one of many, and a policy that has seen four of them looks at all of sixteen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

from lightning_mem1.environments.qa.scripted_researcher.lookup import GIVEN_UP, LINK, UNKNOWN, Notebook

Notation = Literal["every", "next", "react"]
NOTATIONS: tuple[Notation, ...] = get_args(Notation)
NUMBERED = ("next", "react")  # answers stand behind their numbers
LISTED, BAR = ";", " | "  # in these: before the list, and before the question that is searched for


def write_state(memory: Notebook, questions: Sequence[str], notation: str, final: bool) -> str:
    """The internal state.

    Args:
        memory: What is known.
        questions: The questions, without their numbers.
        notation: See above.
        final: Whether the turn answers; no open question is spelled out then, but in `every`.
    """
    if notation == "every":
        return "; ".join([memory.note, *(_place(memory, number) for number in range(len(questions)))])
    known = known_answers(memory)
    due = "" if final else f" {questions[known].lower()}"
    listed = _told_now(memory) if notation == "react" else _listed(memory)
    return f"{f'{memory.note}{LISTED} {listed}'.rstrip()}{BAR}{memory.first + known}{due}"


def known_answers(memory: Notebook) -> int:
    """How many answers are known before the first that is not."""
    return memory.answers.index(UNKNOWN) if UNKNOWN in memory.answers else len(memory.answers)


def _listed(memory: Notebook) -> str:
    """The answers so far behind their numbers."""
    return f"{memory.carried} {_entries(memory, 0)}".strip()


def _told_now(memory: Notebook) -> str:
    """What of the list no earlier turn has given; before there is an answer, what is carried on."""
    return _entries(memory, memory.num_given) if known_answers(memory) else memory.carried


def _entries(memory: Notebook, since: int) -> str:
    known = enumerate(memory.answers[since : known_answers(memory)], memory.first + since)
    return " ".join(f"{number} {answer}" for number, answer in known)


def _place(memory: Notebook, number: int) -> str:
    """An answer with the word before it; an open question with what is searched for next, if that was just read."""
    known, link, told = memory.answers[number], memory.links.get(number, LINK), memory.first + number
    if known != UNKNOWN:
        return f"{told} {link} {known}"
    just_read = number == memory.answers.index(UNKNOWN) and memory.note.endswith(f" {link} {memory.query}")
    return f"{told} {UNKNOWN} {link} {memory.query}" if just_read else f"{told} {UNKNOWN}"


def write_answers(memory: Notebook, notation: str) -> str:
    """The answers as they are given; in `next` the list as it is in the state."""
    if notation in NUMBERED:
        return _listed(memory) or GIVEN_UP
    return "; ".join(GIVEN_UP if each == UNKNOWN else each for each in memory.answers)


def read_state(text: str, num_questions: int, first: int) -> Notebook:
    """What a state in `every` or `next` says; `first` is the number of the first question."""
    note, _, listed = text.partition(LISTED)
    memory = Notebook(note, [UNKNOWN] * num_questions, first=first)
    read = _read_next if BAR in text else _read_every
    read(listed, memory)
    return memory


def _read_every(listed: str, memory: Notebook) -> None:
    """Fill in the answers of a list ``1 by odo lin; 2 ?``: a question's place identifies it."""
    for number, place in enumerate(listed.strip().split("; ")[: len(memory.answers)]):
        known = re.fullmatch(r"\d+ ([^?]\S*) (.*[^?])", place)
        if known:
            memory.links[number], memory.answers[number] = known.groups()


def _read_next(listed: str, memory: Notebook) -> None:
    """Fill in the answers of ``1 odo lin 2 trier | 3 in which year ...?``: the numbers of the list count up."""
    rest = f" {listed.partition(BAR)[0].strip()} "
    if memory.first > 1:
        memory.carried = rest.partition(f" {memory.first} ")[0].strip()
    for place in range(len(memory.answers)):
        _, found, rest = rest.partition(f" {memory.first + place} ")
        answer, _, _ = rest.partition(f" {memory.first + place + 1} ")
        if not found or not answer.strip():
            return
        memory.answers[place], rest = answer.strip(), rest[len(answer) :]
