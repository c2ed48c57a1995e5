"""Questions from files with the document that each is asked about.

```
paragraphs  a question with paragraphs, some of which hold the answer: HotpotQA, 2Wiki, MuSiQue and what
            `paragraphs_in` reads; the paragraphs of other rows serve as distractors
context     a text: the whole document, as long as it is. RULER-HotpotQA has it with input and answers, or with verl's
            prompt and reward_model; MemoryAgentBench with lists of questions and answers, one document for all of them
```
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_mem1.environments.qa.files.findings import Findings
from lightning_mem1.environments.qa.files.rows import Row, read_rows
from lightning_mem1.environments.qa.question import Question, fit_to_ask
from lightning_mem1.environments.qa.question_files import source_name
from lightning_mem1.environments.qa.question_rows import questions_in
from lightning_mem1.environments.qa.retrieval.corpus import paragraphs_in

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True)
class Asked:
    """A question and what it is asked about.

    Attributes:
        question: The question.
        row: Name of its row: questions of one document share it.
        paragraphs: Pieces of the document: what has to be read (`support`), then what comes with it; or the sentences
            of a whole text.
        num_support: How many of the paragraphs have to be read, the first ones.
        whole: Whether the paragraphs are the document; else they are mixed with those of other rows.
    """

    question: Question
    row: str
    paragraphs: tuple[str, ...]
    num_support: int
    whole: bool


def read_asked(path: str) -> list[Asked]:
    """Read the questions of a file, a folder or a data set of the hub, with their documents.

    Args:
        path: See `read_rows`.

    Returns:
        Those that can be asked, in their order. One warning says how many of how many rows they are and what was left
        out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown kind of file or a damaged one, or no question in it comes with a document.
    """
    findings, source = Findings(), source_name(path)
    kept = [asked for row in read_rows(path, findings) for asked in _asked_in(row, source, findings)]
    if not kept:
        fields = f"; the first row has {', '.join(findings.names[:8])}" if findings.names else ""
        raise ValueError(
            f"no document can be read from '{path}': expected rows with a question, answers and paragraphs or context, "
            f"got {findings.summary() or 'no rows'}{fields}"
        )
    if summary := findings.summary():
        warnings.warn(f"{path}: kept {len(kept)} questions of {findings.num_rows} rows; {summary}", stacklevel=2)
    return kept


def _asked_in(row: Row, source: str, findings: Findings) -> Iterator[Asked]:
    named = {str(name).strip().lower(): value for name, value in row.items()}
    name = f"{source}/{findings.num_rows}"
    whole = isinstance(named.get("context"), str)
    for single in _one_by_one(named):
        for question in fit_to_ask(questions_in(single, source, findings), findings):
            paragraphs, num_support = _document(named, question, whole)
            if paragraphs:
                yield Asked(question, name, paragraphs, num_support, whole)
            else:
                findings["no document"] += 1


def _one_by_one(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A row for each of its questions; what RULER calls input is a question."""
    several, answers = row.get("questions"), row.get("answers")
    lists = all(isinstance(each, list | tuple) for each in (several, answers))
    if lists and len(several) == len(answers):  # type: ignore[arg-type]
        for question, accepted in zip(several, answers, strict=True):  # type: ignore[arg-type]
            yield {"question": question, "answers": accepted}
    elif "question" not in row and isinstance(row.get("input"), str):
        yield {**row, "question": row["input"]}
    else:
        yield row


def _document(row: Row, question: Question, whole: bool) -> tuple[tuple[str, ...], int]:
    """The pieces of a document, those that have to be read first; where nobody says which these are, all of them."""
    if whole:
        text = tuple(filter(None, (piece.strip() for piece in _SENTENCE.split(row["context"]))))
        return text, len(text)
    found = [each for each in paragraphs_in(row) if each is not None]
    needed = [each for each in found if each.title in question.support] or found
    rest = [each for each in found if each not in needed]
    written = (f"{each.title}: {each.text}" if each.title else each.text for each in (*needed, *rest))
    return tuple(" ".join(each.split()) for each in written), len(needed)
