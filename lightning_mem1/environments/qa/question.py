"""A single question with its answers, and what makes one fit to be asked.

An answer is written as ``answer1; answer2`` inside a tag, so a semicolon or a tag in an *expected* answer could never
be written. Scoring drops punctuation, so such an answer is repaired by dropping it here too: its score stays the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from lightning_mem1.environments.qa.scoring import normalise

MAX_CHARS = 2000
_TAG = re.compile(r"<\s*(?:/\s*)?[A-Za-z_]+\s*>")  # one way to read a run of spaces, or it takes its square
REPAIRED = "answers repaired"
_UNREADABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffd]")


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: Stable name, unique in its source, e.g. ``"hotpotqa:5a7f"``.
        text: The question; ``{before}`` in it stands for the answer to the question that it needs.
        answers: Accepted answers, the best one first.
        source: Name of the set it comes from.
        hops: Facts that have to be put together, 0 when nobody knows.
        kind: E.g. ``"bridge"`` or ``"comparison"``.
        support: Titles of the passages that hold those facts.
        needs: Id of the question that has to be answered first, empty for none.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    source: str = ""
    hops: int = 0
    kind: str = ""
    support: tuple[str, ...] = ()
    needs: str = ""


def fit_to_ask(questions: Iterable[Question], found: Counter[str], max_chars: int = MAX_CHARS) -> list[Question]:
    """Keep the questions that can be asked and scored, repaired where that changes no score.

    Args:
        questions: What a source holds.
        found: Counts of what was left out or repaired, by reason; added to.
        max_chars: Longest question.

    Returns:
        The questions in their order; of two with the same text the first.
    """
    kept, seen = [], set()
    for question in questions:
        reason, repaired = _look_at(question, max_chars)
        asked = (repaired.text.lower(), repaired.needs)
        if not reason and asked in seen:
            reason = "same question twice"
        if reason:
            found[reason] += 1
            continue
        seen.add(asked)
        found[REPAIRED] += repaired.answers != question.answers
        kept.append(repaired)
    return kept


def _look_at(question: Question, max_chars: int) -> tuple[str, Question]:
    """Why a question cannot be asked (empty when it can), and the question as it is asked."""
    text = " ".join(question.text.split())
    if not text:
        return "no question", question
    if len(text) > max_chars:
        return "question too long", question
    if not all(map(readable, (text, *question.answers))):
        return "unreadable characters", question
    short = (answer for answer in question.answers if len(answer) <= max_chars)
    answers = tuple(dict.fromkeys(filter(_can_be_right, map(writable, short))))
    return ("" if answers else "no answer"), replace(question, text=text, answers=answers)


def readable(text: str) -> bool:
    """Whether a text can be printed and written as UTF-8: no control characters, nothing that was lost in decoding."""
    return not _UNREADABLE.search(text)


def writable(answer: str) -> str:
    """An answer without semicolons and tags, equal to the one given when scored.

    >>> writable("Tom; Jerry</answer>")
    'Tom Jerryanswer'
    """
    short = " ".join(answer.split())  # a tag may hold spaces, and many of them would be looked at again and again
    without_tags = _TAG.sub(lambda found: re.sub(r"[<>/\s]", "", found[0]), short)
    return " ".join(without_tags.replace(";", "").split())


def _can_be_right(answer: str) -> bool:
    return bool(normalise(answer))
