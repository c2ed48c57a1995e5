"""Rows of JSON: lines, a list, or an object around one, whatever the file is called.

```
{"question": ...}\\n{"question": ...}              lines
[{"question": ...}, {"question": ...}]             a list
{"version": "1", "data": [{"question": ...}]}      a list among other fields
{"data": [{"paragraphs": [{"qas": [...]}]}]}       SQuAD's own files
{"question": [...], "answer": [...]}               columns, also as pandas writes them: {"question": {"0": ...}}
```
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from lightning_mem1.environments.qa.files.findings import Findings
from lightning_mem1.environments.qa.files.opened import BROKEN, cut_short, everything, opened

Row = Mapping[str, Any]
REASONS = ("not UTF-8", "not JSON")
NOT_JSON = (ValueError, RecursionError)  # ValueError also for a number of thousands of digits


def json_rows(path: str, findings: Findings) -> Iterator[Row]:
    """Rows of a file of JSON or of JSON lines.

    Raises:
        ValueError: it is cut short, or one value that holds no rows.
    """
    if _is_one_value(path):
        with opened(path) as file:
            content = everything(path, file)
        for number, row in enumerate(_rows_of(path, _whole(path, content)), 1):
            findings.at(number)
            yield from _objects(row, findings)
    else:
        yield from _lines(path, findings)


def _is_one_value(path: str) -> bool:
    """Whether the file is one JSON value over several lines, or a list or an object of rows in its only line."""
    with opened(path) as file:
        first = _next_line(path, file)
        if first.lstrip()[:1] not in (b"[", b"{"):
            return False
        try:
            value = json.loads(first)
        except NOT_JSON:
            begins = first.lstrip().startswith(b"[") or first.strip() == b"{"
            return begins and not _are_lines(_next_line(path, file), _next_line(path, file))
        many = isinstance(value, list) or (isinstance(value, dict) and _inside(value) is not None)
        return many and not _next_line(path, file)


def _are_lines(second: bytes, third: bytes) -> bool:
    """Whether JSON lines follow a first line that is none: a complete object that is not the only one of a list."""
    try:
        return isinstance(json.loads(second), dict) and third.lstrip()[:1] not in (b"]", b"}")
    except NOT_JSON:
        return False


def _next_line(path: str, file: Any) -> bytes:
    """The next line that is not empty, nothing at the end."""
    try:
        return next((line for line in file if line.strip()), b"")
    except BROKEN as error:
        raise ValueError(cut_short(path, error)) from error


def _whole(path: str, content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8", "replace"))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(
            f"'{path}' is neither JSON nor JSON lines: {error.msg} at {place}; correct the file"
        ) from error
    except NOT_JSON as error:
        raise ValueError(f"'{path}' is no JSON that can be read: {' '.join(str(error).split())[:100]}") from error


def _lines(path: str, findings: Findings) -> Iterator[Row]:
    number = 0
    with opened(path) as file:
        while True:
            try:
                line = file.readline()
            except BROKEN as error:
                raise ValueError(cut_short(path, error, number)) from error
            if not line:
                return
            number += 1
            if not line.strip():
                continue
            for row in _values(line):
                findings.at(number)
                if isinstance(row, str) and row in REASONS:
                    findings[row] += 1
                else:
                    yield from _objects(row, findings)


def _values(line: bytes) -> Iterator[Any]:
    """What a line holds, or why it cannot be read."""
    try:
        yield from _unpacked(json.loads(line.decode("utf-8")))
    except UnicodeDecodeError:
        yield REASONS[0]
    except NOT_JSON:
        yield REASONS[1]


def _objects(row: Any, findings: Findings) -> Iterator[Row]:
    if isinstance(row, dict):
        yield row
    else:
        findings["not an object"] += 1


def _rows_of(path: str, value: Any) -> Iterator[Any]:
    rows = value if isinstance(value, list) else _inside(value) if isinstance(value, dict) else None
    if rows is None:
        names = f"an object with {', '.join(map(repr, list(value)[:5]))}" if isinstance(value, dict) else "one value"
        raise ValueError(f"'{path}' holds no rows: expected a list of objects, or one under 'data', got {names}")
    for row in rows:
        yield from _unpacked(row)


def _unpacked(row: Any) -> Iterator[Any]:
    """A row, or the rows that it wraps."""
    if isinstance(row, dict) and row.keys() >= {"row_idx", "row"}:  # as the hub's viewer sends them
        yield row["row"]
    elif isinstance(row, dict) and _has_articles(row):
        yield from _of_article(row)
    else:
        yield row


def _inside(value: dict[str, Any]) -> list[Any] | None:
    """The rows of an object that is none itself: its only list of objects, its columns or its entries by id."""
    values = list(value.values())
    lists = [each for each in values if isinstance(each, list) and each and all(isinstance(e, dict) for e in each)]
    names = {str(name).lower() for name in value}
    if not names & {"question", "prompt", "query", "text", "contents"}:
        if len(lists) == 1 and "paragraphs" not in names:
            return lists[0]
        if values and all(isinstance(each, dict) and "question" in each for each in values):
            return [{"id": name, **each} for name, each in value.items()]
        return None
    if all(isinstance(each, list) and len(each) == len(values[0]) for each in values):
        return [dict(zip(value, row, strict=True)) for row in zip(*values, strict=True)]
    if all(isinstance(each, dict) and each.keys() == values[0].keys() for each in values):
        return [{name: column[key] for name, column in value.items()} for key in values[0]]
    return None


def _has_articles(row: Row) -> bool:
    paragraphs = row.get("paragraphs")
    return isinstance(paragraphs, list) and any(isinstance(each, dict) and "qas" in each for each in paragraphs)


def _of_article(article: Row) -> Iterator[Any]:
    """The questions of an article of SQuAD's own files, each with its paragraph."""
    for paragraph in article["paragraphs"]:
        asked = paragraph.get("qas") if isinstance(paragraph, dict) else None
        for each in asked if isinstance(asked, list) else [asked]:
            around = {"title": article.get("title"), "context": paragraph.get("context")} if asked else {}
            yield {**around, **each} if isinstance(each, dict) else each
