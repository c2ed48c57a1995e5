"""Rows of comma- or tab-separated files with a header line; every value is a text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from lightning_mem1.environments.qa.files.findings import Findings
from lightning_mem1.environments.qa.files.opened import BROKEN, cut_short, opened

SEPARATORS = (",", "\t", ";", "|")
MAX_CHARS = 1 << 24  # of one value
MAX_LINES = 10_000  # of one row: with more a quote was never closed


def csv_rows(path: str, findings: Findings) -> Iterator[Mapping[str, Any]]:
    """Rows of a file, the first one after the header with number 1.

    Raises:
        ValueError: it is cut short, or a quote is never closed, which leaves open where its rows end.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CHARS))
    with opened(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline="")  # type: ignore[type-var]
        header, separator = _header(path, text)
        reader, number = csv.reader(text, delimiter=separator, strict=True), 0
        while True:
            number, line = number + 1, reader.line_num
            try:
                cells = next(reader, None)
            except BROKEN as error:
                raise ValueError(cut_short(path, error, number - 1)) from error
            except csv.Error as error:
                _count(path, findings, number, range(line, reader.line_num), str(error))
                continue
            if cells is None:
                return
            if reader.line_num - line > MAX_LINES:
                raise ValueError(_open_quote(path, number, line))
            if any(cells):
                findings.at(number)
                if len(cells) == len(header):
                    yield dict(zip(header, cells, strict=True))
                else:
                    findings[f"not {len(header)} columns"] += 1


def _count(path: str, findings: Findings, number: int, lines: range, reason: str) -> None:
    """Count the lines of a row that is none; an open quote has swallowed all rows behind it."""
    if "unexpected end" in reason or "field larger" in reason:
        raise ValueError(_open_quote(path, number, lines.start))
    for _ in lines or [0]:
        findings.at(number)
        findings["not CSV"] += 1


def _header(path: str, text: Any) -> tuple[list[str], str]:
    """Names of the columns, and what separates them: the separator that the header holds most often."""
    try:
        line = text.readline()
    except BROKEN as error:
        raise ValueError(cut_short(path, error)) from error
    separator = max(SEPARATORS, key=line.count)
    names = next(csv.reader([line.rstrip("\r\n")], delimiter=separator), [])
    return [name.strip() for name in names], separator


def _open_quote(path: str, row: int, lines_before: int) -> str:
    return f"'{path}', row {row} (line {lines_before + 2}): a quote is opened and never closed; correct the file"
