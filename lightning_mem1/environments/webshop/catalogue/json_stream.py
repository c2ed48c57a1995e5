"""Reads a JSON list or object of any length entry by entry, plain or gzipped.

Only one entry and a piece of the file are in memory at a time. What comes after a mistake is never looked at.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

PIECE_CHARS = 1 << 20
MAX_ENTRY_CHARS = 1 << 26  # a longer entry is a mistake: without a limit, a missing quote would read everything

_SPACES = " \t\n\r"
_KINDS = {"[": "list", "{": "dict", '"': "str", "t": "bool", "f": "bool", "n": "NoneType"}
_decode = json.JSONDecoder().raw_decode


def list_entries(path: Path) -> Iterator[Any]:
    """Yield the entries of the list that a file holds; raises ValueError as `object_entries` does."""
    return _checked(path, _list_entries)


def object_entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of the object that a file holds, repeated keys too.

    Raises:
        ValueError: The file is cut short, no JSON, no UTF-8, no object, or has something after its end.
    """
    return _checked(path, _object_entries)


class _Reader:
    """The part of a text that is read and not used up yet."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file, self._path = file, path
        self._text, self._at, self._used, self._ended = "", 0, 0, False

    def begin(self, bracket: str) -> None:
        first = self.next_char()
        if first != bracket and first:
            raise _ShapeError(
                f"{str(self._path)!r} must hold a JSON {'list' if bracket == '[' else 'object'}, got "
                f"{_KINDS.get(first, 'something else')}: check that it is the official file"
            )
        self.take(bracket)

    def next_char(self) -> str:
        """Return the next character that is no space, without using it up; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACES:
                    return self._text[self._at]
                self._at += 1
            if self._ended:
                return ""
            self._read_on()

    def take(self, expected: str) -> str:
        """Use up the next character, which must be one of `expected`."""
        char = self.next_char()
        if not char or char not in expected:
            raise json.JSONDecodeError(f"expected {' or '.join(expected)}", "", self._used + self._at)
        self._at += 1
        return char

    def skip(self, char: str) -> bool:
        """Use up the next character if it is `char`, and return whether it was."""
        return self.next_char() == char and bool(self.take(char))

    def value(self) -> Any:
        """Use up and return the next value."""
        self.next_char()
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended or len(self._text) - self._at > MAX_ENTRY_CHARS:
                    raise json.JSONDecodeError(error.msg, "", self._used + error.pos) from None
            else:
                if self._ended or (
                    end < len(self._text) and self._text[end] not in ".eE"
                ):  # else a number may continue
                    self._at = end
                    return value
            self._read_on()

    def _read_on(self) -> None:
        """Read as much again as is waiting, so that a long entry is tried a few times only."""
        rest = self._text[self._at :]
        piece = self._file.read(max(PIECE_CHARS, len(rest)))
        self._used += self._at
        self._text, self._at, self._ended = rest + piece, 0, not piece

    def finish(self) -> None:
        if self.next_char():
            raise json.JSONDecodeError("expected the end of the file", "", self._used + self._at)


class _ShapeError(ValueError):
    pass


def _list_entries(reader: _Reader) -> Iterator[Any]:
    reader.begin("[")
    more = not reader.skip("]")
    while more:
        yield reader.value()
        more = reader.take(",]") == ","
    reader.finish()


def _object_entries(reader: _Reader) -> Iterator[tuple[str, Any]]:
    reader.begin("{")
    more = not reader.skip("}")
    while more:
        if reader.next_char() != '"':
            reader.take('"')
        key = reader.value()
        reader.take(":")
        yield key, reader.value()
        more = reader.take(",}") == ","
    reader.finish()


def _checked(path: Path, entries: Any) -> Iterator[Any]:
    """Open a file and say of a mistake in it where it is and what to do."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            yield from entries(_Reader(file, path))
    except _ShapeError as error:
        raise ValueError(str(error)) from None
    except (json.JSONDecodeError, UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error, RecursionError) as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise ValueError(
            f"expected complete JSON in {str(path)!r}, got {what}{where} ({path.stat().st_size} bytes): "
            "download it again"
        ) from error
