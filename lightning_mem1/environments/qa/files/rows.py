"""Rows of data files and of data sets of the hub, as dictionaries; what cannot be read is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_mem1.environments.qa.files.arrow_rows import arrow_rows, folder_rows, parquet_rows
from lightning_mem1.environments.qa.files.csv_rows import csv_rows
from lightning_mem1.environments.qa.files.findings import Findings
from lightning_mem1.environments.qa.files.json_rows import json_rows
from lightning_mem1.environments.qa.files.opened import kind_of

HUB = "hub:"
Row = Mapping[str, Any]
READERS: dict[str, Callable[[str, Findings], Iterator[Row]]] = {
    ".jsonl": json_rows,
    ".json": json_rows,
    ".ndjson": json_rows,
    ".parquet": parquet_rows,
    ".arrow": arrow_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
}


def read_rows(path: str, findings: Findings) -> Iterator[Row]:
    """Rows of a file, of a folder of ``save_to_disk`` or of a data set of the hub.

    Args:
        path: ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` (each also ``.gz``, ``.bz2`` or ``.xz``), ``.parquet``,
            ``.arrow``, a folder, ``hub:<name>[:<config>[:<split>]]``, or ``hub:<owner>/<name>/<file>`` for one file of
            a data set.
        findings: Counts the rows that are read, and those that are no rows.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: an unknown kind of file, or one that is damaged.
    """
    for row in _rows(path, findings):
        findings.names = findings.names or tuple(map(str, row))
        yield row


def _rows(path: str, findings: Findings) -> Iterator[Row]:
    if path.startswith(HUB):
        file = path.removeprefix(HUB).split(":")[0].count("/") > 1
        return _rows(_downloaded(path), findings) if file else _hub_rows(path, findings)
    if Path(path).is_dir():
        return folder_rows(path, findings)
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such data: expected a file, got '{path}'; set data.questions or data.corpus")
    reader = READERS.get(kind_of(path))
    if reader is None:
        raise ValueError(
            f"unknown kind of data: expected {', '.join(READERS)} (or with .gz), a folder of save_to_disk or "
            f"{HUB}name, got '{path}'"
        )
    return reader(path, findings)


def _hub_rows(path: str, findings: Findings) -> Iterator[Row]:
    from datasets import load_dataset

    name, config, split = [*path.removeprefix(HUB).split(":"), "", ""][:3]
    try:
        for number, row in enumerate(load_dataset(name, config or None, split=split or "train", streaming=True), 1):
            findings.at(number)
            yield row
    except Exception as error:  # the hub's, the network's and every reader's own kinds
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"cannot read '{path}' after row {findings.num_rows}: {type(error).__name__}: {reason}; check its name, "
            "config and split, and the network"
        ) from error


def _downloaded(path: str) -> str:
    """A file of a data set of the hub, in the hub's own cache."""
    from huggingface_hub import hf_hub_download

    owner, name, file = path.removeprefix(HUB).split("/", 2)
    try:
        return str(hf_hub_download(f"{owner}/{name}", file, repo_type="dataset"))
    except Exception as error:  # the hub's and the network's own kinds
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"cannot read '{path}': {type(error).__name__}: {reason}; check its owner, name and file, and the network"
        ) from error
