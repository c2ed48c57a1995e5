"""Passages from files: rows with title and text, wiki-18's contents, or the paragraphs that come with questions."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from lightning_mem1.environments.qa.answers import unwrapped
from lightning_mem1.environments.qa.files.content_hash import content_hash
from lightning_mem1.environments.qa.files.findings import Findings
from lightning_mem1.environments.qa.files.rows import HUB, Row, read_rows
from lightning_mem1.environments.qa.question_rows import field
from lightning_mem1.environments.qa.retrieval.passage import Passage, from_contents

VERSION = 1  # of what is read from a file; raise it when the same files give other passages
TEXTS = ("text", "paragraph_text", "passage", "content")
TITLES = ("title", "wikipedia_title")


class Corpus:
    """Passages that an index is made of, and what identifies them.

    Args:
        name: What they are called in a message.
        read: Makes them.
        paths: The files that they are read from; without any the passages themselves are hashed.
    """

    def __init__(self, name: str, read: Callable[[], list[Passage]], paths: Sequence[str] = ()) -> None:
        self.name, self.read, self.paths = name, read, tuple(paths)

    @classmethod
    def of_file(cls, path: str) -> Corpus:
        """The passages of a file, see `read_corpus`."""
        return cls(f"'{path}'", lambda: distinct(read_corpus(path)), [path])

    @classmethod
    def of_questions(cls, paths: Sequence[str]) -> Corpus:
        """The paragraphs that come with the questions of some files."""
        names = ", ".join(f"'{path}'" for path in paths)

        def read() -> list[Passage]:
            found = distinct(chain(*map(passages_of, paths)))
            if not found:
                raise ValueError(
                    f"no passages: expected paragraphs with the questions of {names}, got none; set data.corpus to a "
                    "file of passages, or data.retriever to a server"
                )
            return found

        return cls(f"the paragraphs of {names}", read, paths)

    def fingerprint(self, remembered: Path | None = None) -> str:
        """Sixteen hex digits of the content, however the files are called and wherever they lie.

        Args:
            remembered: A file that keeps the hashes of large files, so that they are read again only when they have
                changed.
        """
        digest = hashlib.sha256(f"reading {VERSION}".encode())
        if not self.paths:
            for passage in self.read():
                digest.update(json.dumps([passage.title, passage.text, passage.url]).encode())
        for path in self.paths:
            digest.update((path if path.startswith(HUB) else content_hash(path, remembered)).encode())
        return digest.hexdigest()[:16]


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
