"""Rows of data files and of data sets of the hub, as dictionaries; what cannot be read is counted."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

HUB = "hub:"
Row = Mapping[str, Any]


def read_rows(path: str, told: Counter[str]) -> Iterator[Row]:
    """Rows of a file; lines that are no JSON objects are counted in `told`."""
    if path.startswith(HUB):
        yield from _hub_rows(path)
        return
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such data: expected a file, got '{path}'; set data.questions or data.corpus")
    if path.endswith(".parquet"):
        yield from _parquet_rows(path)
    elif path.endswith((".jsonl", ".jsonl.gz")):
        yield from _lines(path, told)
    elif path.endswith(".json"):
        yield from json.loads(Path(path).read_text(encoding="utf-8"))
    else:
        raise ValueError(
            f"unknown kind of data: expected .jsonl, .jsonl.gz, .json, .parquet or {HUB}name, got '{path}'"
        )


def _opened(path: str) -> IO[bytes]:
    return gzip.open(path, "rb") if path.endswith(".gz") else Path(path).open("rb")  # type: ignore[return-value]


def _lines(path: str, told: Counter[str]) -> Iterator[Row]:
    with _opened(path) as file:
        for line in file:
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError:
                told["not UTF-8"] += 1
            except json.JSONDecodeError:
                told["not JSON"] += 1
            else:
                if isinstance(row, dict):
                    yield row
                else:
                    told["not an object"] += 1


def _parquet_rows(path: str) -> Iterator[Row]:
    from pyarrow.parquet import ParquetFile

    for batch in ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _hub_rows(path: str) -> Iterator[Row]:
    from datasets import load_dataset

    name, config, split = [*path.removeprefix(HUB).split(":"), "", ""][:3]
    yield from load_dataset(name, config or None, split=split or "train", streaming=True)
