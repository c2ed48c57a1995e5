"""Questions and passages from files: FlashRAG and HotpotQA-like JSON lines, Search-R1 and MEM1 parquet, the hub.

A row that cannot be read is left out and counted, never guessed at; a file of which nothing can be read is an error.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning_mem1.environments.qa.question import Question, fit_to_ask
from lightning_mem1.environments.qa.retrieval.rows import HUB, Row, read_rows
from lightning_mem1.types import Split

_ASKED = re.compile(r"(?:Answer the following questions?|Question):(.+)", re.DOTALL)
_BETWEEN = re.compile(r"(?<=\?);\s+")


def read_questions(path: str, max_chars: int = 2000) -> list[Question]:
    """Read all questions of a file or a data set of the hub.

    Args:
        path: ``.jsonl``, ``.jsonl.gz``, ``.json``, ``.parquet`` or ``hub:<name>[:<config>[:<split>]]``.
        max_chars: Longer questions are left out.

    Returns:
        The questions that can be asked, in their order. What was left out or mended is told in one warning.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown kind of file, or no question in it can be asked.
    """
    told: Counter[str] = Counter()
    found = (question for row in read_rows(path, told) for question in questions_in(row, source_name(path), told))
    kept = fit_to_ask(found, told, max_chars)
    counts = ", ".join(f"{reason} {number}" for reason, number in told.items() if number)
    if not kept:
        raise ValueError(
            f"no question can be asked from '{path}': expected rows with question and golden_answers or answers, got "
            f"{counts or 'no rows'}"
        )
    if counts:
        warnings.warn(f"{path}: kept {len(kept)} questions; {counts}", stacklevel=2)
    return kept


def hashed_split(name: str) -> Split:
    """Eight of ten names are for training, one each for validation and test."""
    tenth = int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=4).digest()) % 10
    return "val" if tenth == 8 else "test" if tenth == 9 else "train"


def source_name(path: str) -> str:
    """Name of a set: ``hotpotqa`` of ``data/hotpotqa.jsonl.gz``."""
    return path if path.startswith(HUB) else Path(path).name.split(".")[0]


def questions_in(row: Row, source: str, told: Counter[str]) -> Iterator[Question]:
    """The questions of a row: one of FlashRAG's and its kin, several of MEM1's composed parquet."""
    answers = next((row[key] for key in ("golden_answers", "answers", "answer") if row.get(key) is not None), None)
    if isinstance(row.get("question"), str) and answers is not None:
        pairs = [(row["question"], answers)]
    else:
        pairs = _composed(row)
    if not pairs:
        told["row not understood"] += 1
    titles = tuple(dict.fromkeys(map(str, row.get("supporting_titles") or ())))
    for number, (text, given) in enumerate(pairs):
        name = f"{_row_id(row, source) or _digest(text)}{f'/{number}' if len(pairs) > 1 else ''}"
        accepted = (given,) if isinstance(given, str) else tuple(each for each in given if isinstance(each, str))
        yield Question(f"{source}:{name}", text, accepted, source, len(titles), str(row.get("type") or ""), titles)


def _row_id(row: Row, source: str) -> str:
    extra = row.get("extra_info") or {}
    number = extra.get("indices", extra.get("index"))
    name = row.get("id", row.get("_id", None if number is None else f"{extra.get('split', 'row')}/{number}"))
    return "" if name is None else str(name).removeprefix(f"{source}:")


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=6).hexdigest()


def _composed(row: Row) -> list[tuple[str, Any]]:
    """Questions and targets of a row of Search-R1 (one question) or MEM1 (joined by ``"; "`` in the prompt)."""
    try:
        prompt, target = row["prompt"][0]["content"], row["reward_model"]["ground_truth"]["target"]
    except (KeyError, IndexError, TypeError):
        return []
    found = _ASKED.search(prompt)
    asked_for = found[1].strip() if found else ""  # not by the pattern: a run of spaces would take its square
    if not asked_for or not target:
        return []
    if isinstance(target, str) or all(isinstance(each, str) for each in target):
        return [(asked_for, target)]
    asked = _BETWEEN.split(asked_for)
    return list(zip(asked, target, strict=True)) if len(asked) == len(target) else []


def split_questions(
    questions: Sequence[str], val: Sequence[str] | None, test: Sequence[str] | None, max_chars: int = 2000
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
