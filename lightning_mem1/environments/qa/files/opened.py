"""Opens data files as people have them: compressed or not, with a byte order mark or without, in the wrong encoding.

What a file is, is asked of its first bytes: names lie.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any

BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError)  # what decompressing a damaged file raises
COMPRESSIONS = (".gz", ".bz2", ".xz")
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_NO_DATA = {  # first bytes -> what such a file is and what to do
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself with git lfs pull",
    b"<!doctype html": "a web page; download the file itself, on the hub by its 'resolve' address",
    b"<html": "a web page; download the file itself, on the hub by its 'resolve' address",
    b"(\xb5/\xfd": "compressed with zstd; decompress it with zstd -d",
    b"PK\x03\x04": "a zip archive (or a spreadsheet); unpack it, or save it as .csv",
}
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def kind_of(path: str) -> str:
    """The ending of a name without that of a compression, in small letters: ``.jsonl`` of ``NQ.JSONL.gz``."""
    name = Path(path.lower())
    return Path(name.stem).suffix if name.suffix in COMPRESSIONS else name.suffix


def first_bytes(path: str) -> bytes:
    """The beginning of what a file holds, decompressed."""
    with opened(path) as file:
        return _begins(path, file)


@contextmanager
def opened(path: str) -> Iterator[BufferedIOBase]:
    """A file's content, decompressed, without a byte order mark, as UTF-8 when it was UTF-16 or UTF-32.

    Raises:
        ValueError: it is no data file at all, or it was cut short or damaged on the way.
    """
    with Path(path).open("rb") as raw:
        start = raw.read(16)
    opener = next((each for magic, each in _OPENERS.items() if start.startswith(magic)), None)
    with opener(path, "rb") if opener else Path(path).open("rb") as file:
        begins = _begins(path, file)
        _check_data(path, begins)
        mark, encoding = next(((m, e) for m, e in _MARKS if begins.startswith(m)), (b"", ""))
        file.seek(len(mark) if encoding == "utf-8-sig" else 0)
        if encoding in ("", "utf-8-sig"):
            yield file
        else:
            yield BytesIO(everything(path, file).decode(encoding, "replace").encode("utf-8", "replace"))


def _begins(path: str, file: BufferedIOBase) -> bytes:
    try:
        return file.read(64)
    except BROKEN as error:
        raise ValueError(cut_short(path, error)) from error


def everything(path: str, file: BufferedIOBase) -> bytes:
    """The remaining content of an opened file."""
    try:
        return file.read()
    except BROKEN as error:
        raise ValueError(cut_short(path, error)) from error


def _check_data(path: str, begins: bytes) -> None:
    for magic, what in _NO_DATA.items():
        if begins.lstrip().lower().startswith(magic.lower()):
            raise ValueError(f"'{path}' is no data file: it is {what}")


def cut_short(path: str, error: Exception, row: int = 0) -> str:
    """What to say about a file that ends or breaks off in the middle, after so many good rows."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"'{path}' is damaged or cut short after row {row}: {reason[:120]}; copy or download it again"
