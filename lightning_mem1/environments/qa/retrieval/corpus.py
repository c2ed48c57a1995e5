"""Passages from files: wiki-18's JSON lines, rows with title and text, or the paragraphs that come with questions."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator

from lightning_mem1.environments.qa.retrieval.passage import Passage, from_contents
from lightning_mem1.environments.qa.retrieval.rows import read_rows


def read_corpus(path: str) -> Iterator[Passage]:
    """Passages of a file of rows with ``title`` and ``text``, or with ``contents`` as wiki-18 has it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a row has neither.
    """
    told: Counter[str] = Counter()
    for number, row in enumerate(read_rows(path, told)):
        if isinstance(row.get("text"), str):
            yield Passage(str(row.get("title") or ""), row["text"])
        elif isinstance(row.get("contents"), str):
            yield from_contents(row["contents"])
        else:
            raise ValueError(f"row {number} of '{path}' is no passage: expected text or contents, got {sorted(row)}")
    if told:
        warnings.warn(f"{path}: {', '.join(f'{reason} {n}' for reason, n in told.items())}", stacklevel=2)


def passages_of(path: str) -> Iterator[Passage]:
    """The paragraphs that come with the questions of a file, each once."""
    seen = set()
    for row in read_rows(path, Counter()):
        for each in row.get("paragraphs") or []:
            passage = Passage(str(each.get("title") or ""), str(each.get("text") or ""))
            if passage not in seen:
                seen.add(passage)
                yield passage


def distinct(passages: Iterable[Passage]) -> list[Passage]:
    """Each passage once, in order."""
    return list(dict.fromkeys(passages))
