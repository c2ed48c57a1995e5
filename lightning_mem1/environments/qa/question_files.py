"""Questions from files, and their splits.

A row that is not understood is left out and counted, never guessed at; a file of which nothing can be read is an error.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightning_mem1.environments.qa.files.findings import Findings
from lightning_mem1.environments.qa.files.rows import HUB, read_rows
from lightning_mem1.environments.qa.question import MAX_CHARS, Question, fit_to_ask
from lightning_mem1.environments.qa.question_rows import digest, questions_in
from lightning_mem1.types import Split


def read_questions(path: str, max_chars: int = MAX_CHARS) -> list[Question]:
    """Read all questions of a file, a folder or a data set of the hub.

    Args:
        path: See `read_rows`.
        max_chars: Longer questions are left out.

    Returns:
        The questions that can be asked, in their order, each id once. One warning says how many of how many rows they
        are, what was left out or repaired and in which row first.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown kind of file or a damaged one, or no question in it can be asked.
    """
    findings, source = Findings(), source_name(path)
    found = (question for row in read_rows(path, findings) for question in questions_in(row, source, findings))
    kept = _named_apart(fit_to_ask(found, findings, max_chars))
    if not kept:
        fields = f"; the first row has {', '.join(findings.names[:8])}" if findings.names else ""
        raise ValueError(
            f"no question can be asked from '{path}': expected rows with question and golden_answers or answers (a "
            f"text or several), got {findings.summary() or 'no rows'}{fields}"
        )
    if summary := findings.summary():
        warnings.warn(f"{path}: kept {len(kept)} questions of {findings.num_rows} rows; {summary}", stacklevel=2)
    return kept


def _named_apart(questions: list[Question]) -> list[Question]:
    """The questions with unique ids: a set may give one id to several."""
    seen: set[str] = set()
    named = []
    for question in questions:
        name = question.id if question.id not in seen else f"{question.id}#{digest(question.text)}"
        seen.add(name)
        named.append(question if name == question.id else replace(question, id=name))
    return named


def hashed_split(name: str) -> Split:
    """Eight of ten names are for training, one each for validation and test."""
    tenth = int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=4).digest()) % 10
    return "val" if tenth == 8 else "test" if tenth == 9 else "train"


def source_name(path: str) -> str:
    """Name of a set: ``hotpotqa`` of ``data/hotpotqa.jsonl.gz``."""
    return path if path.startswith(HUB) else Path(path).name.split(".")[0]


def split_questions(
    questions: Sequence[str], val: Sequence[str] | None, test: Sequence[str] | None, max_chars: int = MAX_CHARS
) -> dict[Split, dict[str, list[Question]]]:
    """Questions by split and set.

    Args:
        questions: Paths of the training questions.
        val: Paths of the validation questions; None parts a tenth of `questions` off, by the hash of the id.
        test: The same for the test.
        max_chars: Longer questions are left out.
    """
    splits: dict[Split, dict[str, list[Question]]] = {"train": {}, "val": {}, "test": {}}
    given: dict[Split, Sequence[str] | None] = {"train": questions, "val": val, "test": test}
    for path in questions:
        for question in read_questions(path, max_chars):
            split = hashed_split(question.id)
            split = "train" if given[split] is not None else split
            splits[split].setdefault(source_name(path), []).append(question)
    for split in ("val", "test"):
        for path in given[split] or ():
            splits[split].setdefault(source_name(path), []).extend(read_questions(path, max_chars))
    return splits
