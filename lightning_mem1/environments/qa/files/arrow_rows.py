"""Rows of Parquet and Arrow files, and of folders that `datasets` has saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_mem1.environments.qa.files.findings import Findings
from lightning_mem1.environments.qa.files.opened import first_bytes

Row = Mapping[str, Any]


def parquet_rows(path: str, findings: Findings) -> Iterator[Row]:
    """Rows of a Parquet file.

    Raises:
        ValueError: it is no Parquet file, or it was cut short or damaged.
    """
    from pyarrow.parquet import ParquetFile

    if not (begins := first_bytes(path)).startswith(b"PAR1"):
        raise ValueError(f"'{path}' is no Parquet file: it begins with {begins[:24]!r}; check its ending")
    yield from _batches(path, lambda: ParquetFile(path).iter_batches(), findings)


def arrow_rows(path: str, findings: Findings) -> Iterator[Row]:
    """Rows of an Arrow file, as a stream (what `datasets` writes) or with an index.

    Raises:
        ValueError: it is neither, or it was cut short or damaged.
    """
    from pyarrow import ipc

    indexed = first_bytes(path).startswith(b"ARROW1")

    def batches() -> Iterator[Any]:
        if indexed:
            file = ipc.open_file(path)
            return (file.get_batch(number) for number in range(file.num_record_batches))
        return iter(ipc.open_stream(path))

    yield from _batches(path, batches, findings)


def folder_rows(path: str, findings: Findings) -> Iterator[Row]:
    """Rows of a folder of ``save_to_disk``.

    Raises:
        ValueError: it is no such folder, it holds several splits, or it is damaged.
    """
    from datasets import load_from_disk

    folder = Path(path)
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(each.name for each in folder.iterdir() if (each / "state.json").is_file())
        names = ", ".join(f"'{folder / name}'" for name in splits)
        raise ValueError(f"'{path}' holds several splits: expected one of {names}; name it")
    if not (folder / "state.json").is_file():
        found = ", ".join(sorted(each.name for each in folder.iterdir())[:3])
        raise ValueError(
            f"'{path}' is a folder that datasets has not saved: expected state.json in it, got {found or 'nothing'}; "
            "name the files themselves"
        )

    def batches() -> Iterator[Any]:
        data = load_from_disk(path).with_format("arrow")
        return (data[start : start + 1000] for start in range(0, len(data), 1000))

    yield from _batches(path, batches, findings)


def _batches(path: str, batches: Any, findings: Findings) -> Iterator[Row]:
    """Rows of batches of Arrow, which are numbered from 1."""
    number = 0
    try:
        for batch in batches():
            for row in _values(batch):
                number += 1
                findings.at(number)
                if row is None:
                    findings["not readable"] += 1
                else:
                    yield row
    except Exception as error:  # pyarrow and datasets raise many kinds for what is damaged
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"cannot read '{path}' after row {number}: {reason}; copy or download it again") from error


def _values(batch: Any) -> list[Row | None]:
    """Rows of a batch; None for one with a value that Python cannot hold, such as a text that is no UTF-8."""
    try:
        return list(batch.to_pylist())
    except Exception:
        if batch.num_rows == 1:
            return [None]
        return [row for number in range(batch.num_rows) for row in _values(batch.slice(number, 1))]
