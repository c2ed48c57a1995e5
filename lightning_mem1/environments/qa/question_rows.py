"""What a row of a data set asks and accepts: FlashRAG, HotpotQA, 2Wiki, MuSiQue, SQuAD, TriviaQA, NQ, verl and MEM1."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_mem1.environments.qa.answers import accepted, joined, unwrapped
from lightning_mem1.environments.qa.files.findings import Findings
from lightning_mem1.environments.qa.files.rows import Row
from lightning_mem1.environments.qa.question import Question, readable

QUESTIONS = ("question", "query", "problem")
ANSWERS = ("golden_answers", "answers", "answer", "possible_answers")
_ASKED = re.compile(r"(Answer the following questions?|Question):")
_BETWEEN = re.compile(r"(?<=\?);\s+")
_SPECIAL = "<|"  # a prompt that a chat template has been put around already
MAX_ID_CHARS = 200
Pair = tuple[str, tuple[str, ...]]


def questions_in(row: Row, source: str, findings: Findings) -> Iterator[Question]:
    """The questions of a row: one of most sets, several of MEM1's composed parquet, none of one that is left out.

    Args:
        row: Names are read in small letters.
        source: Name of the set.
        findings: Counts rows that are left out.
    """
    row = {str(name).strip().lower(): value for name, value in row.items()}
    pairs = _pairs(row)
    if isinstance(pairs, str):
        findings[pairs] += 1
        return
    titles, kind = support(row), field(row, "type")
    kind = kind if isinstance(kind, str) and readable(kind) else ""
    for number, (text, answers) in enumerate(pairs):
        name = f"{_row_id(row, source) or digest(text)}{f'/{number}' if len(pairs) > 1 else ''}"
        yield Question(f"{source}:{name}", text, answers, source, len(titles), kind, titles)


def digest(text: str) -> str:
    """A name for what has none."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=6).hexdigest()


def field(row: Row, name: str) -> Any:
    """A field of a row, or of the ``metadata`` in it, where FlashRAG keeps what a set has of its own."""
    found = row.get(name)
    if found is None and isinstance(inner := unwrapped(row.get("metadata")), Mapping):
        found = inner.get(name)
    return unwrapped(found)


def _pairs(row: Row) -> list[Pair] | str:
    """Questions with their accepted answers, or why the row is left out."""
    if _is_unanswerable(row):
        return "not answerable"
    given = [unwrapped(row[name]) for name in ANSWERS if not _is_empty(row.get(name))]
    if not given:
        return _composed(row)
    text = _asked_once(row)
    if text is None:
        return "row not understood"
    answers = joined([accepted(given[0]), accepted(row.get("answer_aliases"))])
    return "answers not understood" if answers is None else [(text, answers)]


def _is_unanswerable(row: Row) -> bool:
    answerable, impossible = (str(field(row, name)).strip().lower() for name in ("answerable", "is_impossible"))
    return answerable in ("false", "0") or impossible in ("true", "1")  # as text in a table


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | tuple | dict) and not value) or value != value


def _asked_once(row: Row) -> str | None:
    """The one question of a row; None when it has none, or more than one."""
    extra = unwrapped(row.get("extra_info"))
    places = [row.get(name) for name in QUESTIONS] + [extra.get("question") if isinstance(extra, Mapping) else None]
    for value in places:
        if not _is_empty(value):
            return value if isinstance(value, str) else None
    asked = asked_in(row.get("prompt"))
    return asked[0] if len(asked) == 1 else None


def asked_in(prompt: Any) -> list[str]:
    """The questions in a prompt: a text, or a chat whose last message of the user holds them.

    They follow ``Question:`` or ``Answer the following questions:``; a prompt without either is the question when
    it is one line and ends in a question mark.
    """
    text = _last_of_user(unwrapped(prompt))
    if text is None or _SPECIAL in text:
        return []
    if found := _ASKED.search(text):
        asked = text[found.end() :].strip()
        several = found[1].endswith("questions")
        return [each for each in (_BETWEEN.split(asked) if several else [asked]) if each]
    text = text.strip()
    return [text] if text.endswith("?") and "\n" not in text else []


def _last_of_user(prompt: Any) -> str | None:
    if isinstance(prompt, str):
        return prompt
    if not isinstance(prompt, list | tuple):
        return None
    said = [each for each in prompt if isinstance(each, Mapping) and each.get("role", "user") == "user"]
    content = said[-1].get("content") if said else None
    if isinstance(content, list | tuple):  # a message in parts
        parts = [each.get("text") if isinstance(each, Mapping) else None for each in content]
        content = "\n".join(parts) if all(isinstance(part, str) for part in parts) else None  # type: ignore[arg-type]
    return content if isinstance(content, str) else None


def _composed(row: Row) -> list[Pair] | str:
    """Questions and targets of a row of verl, Search-R1 (one question) or MEM1 (joined by ``"; "`` in the prompt)."""
    graded = unwrapped(row.get("reward_model"))
    truth = unwrapped(graded.get("ground_truth")) if isinstance(graded, Mapping) else None
    target: Any = unwrapped(truth.get("target")) if isinstance(truth, Mapping) else truth
    asked, text = asked_in(row.get("prompt")), _asked_once(row)
    if _is_empty(target):
        return "row not understood" if text is None and not asked else "no answer"
    lists = isinstance(target, list | tuple) and all(isinstance(each, list | tuple) for each in target)
    if len(asked) > 1 or (lists and len(target) > 1):
        return _zipped(asked, target) if lists and len(asked) == len(target) else "row not understood"
    if text is None:
        return "row not understood"
    answers = accepted(target)
    return "answers not understood" if answers is None else [(text, answers)]


def _zipped(asked: Sequence[str], target: Sequence[Any]) -> list[Pair] | str:
    """Each question with its own list of answers."""
    pairs = [
        (text, answers) for text, each in zip(asked, target, strict=True) if (answers := accepted(each)) is not None
    ]
    return pairs if len(pairs) == len(asked) else "answers not understood"


def support(row: Row) -> tuple[str, ...]:
    """Titles of the passages that hold the facts, as far as the row says so.

    ``supporting_titles``, HotpotQA's ``supporting_facts`` (pairs, on the hub columns) or MuSiQue's marked paragraphs.
    """
    facts, paragraphs = field(row, "supporting_facts"), field(row, "paragraphs")
    titles = field(row, "supporting_titles")
    if not titles and isinstance(facts, Mapping):
        titles = facts.get("title")
    if not titles and isinstance(facts, list | tuple):
        titles = [each[0] for each in facts if isinstance(each, list | tuple) and each]
    if not titles and isinstance(paragraphs, list | tuple):
        marked = [each for each in paragraphs if isinstance(each, Mapping) and each.get("is_supporting") is True]
        titles = [each.get("title") for each in marked]
    known = titles if isinstance(titles, list | tuple) else []
    return tuple(dict.fromkeys(title for title in known if isinstance(title, str)))


def _row_id(row: Row, source: str) -> str:
    """The name that a row has of itself, if it is one that can be printed."""
    extra = unwrapped(row.get("extra_info"))
    extra = extra if isinstance(extra, Mapping) else {}
    number = extra.get("indices", extra.get("index"))
    name = row.get("id", row.get("_id"))
    if name is None and isinstance(number, str | int):
        name = f"{extra.get('split', 'row')}/{number}"
    if isinstance(name, bool) or not isinstance(name, str | int):
        return ""
    found = str(name).removeprefix(f"{source}:").strip()
    return found if len(found) <= MAX_ID_CHARS and readable(found) else ""
