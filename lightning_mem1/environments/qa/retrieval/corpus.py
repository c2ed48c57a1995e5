"""Passages from files: rows with title and text, wiki-18's contents, or the paragraphs that come with questions."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lightning_mem1.environments.qa.answers import unwrapped
from lightning_mem1.environments.qa.files.findings import Findings
from lightning_mem1.environments.qa.files.rows import Row, read_rows
from lightning_mem1.environments.qa.question_rows import field
from lightning_mem1.environments.qa.retrieval.passage import Passage, from_contents

TEXTS = ("text", "paragraph_text", "passage", "content")
TITLES = ("title", "wikipedia_title")


def read_corpus(path: str) -> Iterator[Passage]:
    """Passages of a file of rows with ``title`` and ``text``, or with ``contents`` as wiki-18 has it.

    Rows that are no passages are left out; one warning at the end counts them and names the first.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown kind of file or a damaged one, or no row in it is a passage.
    """
    findings, kept = Findings(), 0
    for row in read_rows(path, findings):
        passage = passage_of(row)
        if passage is None:
            findings["no passage"] += 1
        else:
            kept += 1
            yield passage
    if not kept:
        fields = f"; the first row has {', '.join(findings.names[:8])}" if findings.names else ""
        raise ValueError(
            f"no passage can be read from '{path}': expected rows with text or contents, got "
            f"{findings.summary() or 'no rows'}{fields}"
        )
    _report(path, kept, findings)


def passages_of(path: str) -> Iterator[Passage]:
    """The paragraphs that come with the questions of a file, each once."""
    findings, seen = Findings(), set()
    for row in read_rows(path, findings):
        named = {str(name).strip().lower(): value for name, value in row.items()}
        for passage in paragraphs_in(named):
            if passage is None:
                findings["paragraph not understood"] += 1
            elif passage not in seen:
                seen.add(passage)
                yield passage
    _report(path, len(seen), findings)


def _report(path: str, kept: int, findings: Findings) -> None:
    if summary := findings.summary():
        warnings.warn(f"{path}: {kept} passages of {findings.num_rows} rows; {summary}", stacklevel=3)


def passage_of(row: Row) -> Passage | None:
    """The passage that a row is; None for a row without a text."""
    named = {str(name).strip().lower(): value for name, value in row.items()}
    text = next((named[name] for name in TEXTS if named.get(name) is not None), None)
    title = next((named[name] for name in TITLES if isinstance(named.get(name), str)), "")
    if isinstance(text, list | tuple) and all(isinstance(each, str) for each in text):  # sentences or paragraphs
        text = " ".join(each.strip() for each in text)
    found = Passage(title, text) if isinstance(text, str) else None
    if text is None and isinstance(named.get("contents"), str):
        found = from_contents(named["contents"])
    return found if found and (found.text.strip() or found.title.strip()) else None


def paragraphs_in(row: Row) -> Iterator[Passage | None]:
    """The paragraphs that a row of questions brings, None for each that is not understood.

    ```
    paragraphs  [{"title": ..., "text": ...}]             also paragraph_text, as MuSiQue has it; the same for ctxs
    context     [["Ulm", ["A town.", "It lies ..."]]]     HotpotQA and 2Wiki
                {"title": [...], "sentences": [[...]]}    the same on the hub
                "Ulm is a town."                          SQuAD, with the row's title
    ```
    """
    for name in ("paragraphs", "ctxs"):
        for each in _listed(field(row, name)):
            yield passage_of(each) if isinstance(each, Mapping) else _of_text(each)
    context, title = field(row, "context"), row.get("title")
    if isinstance(context, str):
        yield passage_of({"title": title, "text": context})
    elif isinstance(context, Mapping):
        yield from _of_columns(context)
    else:
        for each in _listed(context):
            pair = isinstance(each, list | tuple) and len(each) == 2
            yield passage_of({"title": each[0], "text": each[1]}) if pair else _of_text(each)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _of_text(value: Any) -> Passage | None:
    return Passage("", value) if isinstance(value, str) and value.strip() else None


def _of_columns(context: Mapping[str, Any]) -> Iterator[Passage | None]:
    titles = unwrapped(context.get("title"))
    texts = unwrapped(context.get("sentences", context.get("content")))
    if not isinstance(titles, list | tuple) or not isinstance(texts, list | tuple) or len(titles) != len(texts):
        yield None
        return
    for title, text in zip(titles, texts, strict=True):
        yield passage_of({"title": title, "text": text})


def distinct(passages: Iterable[Passage]) -> list[Passage]:
    """Each passage once, in order."""
    return list(dict.fromkeys(passages))
