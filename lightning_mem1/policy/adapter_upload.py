"""The files of an adapter as plain text for JSON, and back: safetensors and a config, nothing else."""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_mem1.policy.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS

FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)


def packed(folder: Path) -> dict[str, str]:
    """The files of a folder, in base64 by name."""
    return {name: base64.b64encode((folder / name).read_bytes()).decode("ascii") for name in FILES}


@contextmanager
def unpacked(files: Any) -> Iterator[Path]:
    """A temporary folder with the files of `packed`; it is gone afterwards.

    Raises:
        ValueError: they are none.
    """
    if not isinstance(files, dict) or sorted(files) != sorted(FILES):
        got = ", ".join(map(str, files))[:80] if isinstance(files, dict) else type(files).__name__
        raise ValueError(f"expected 'files' with {' and '.join(FILES)}, got {got}")
    with tempfile.TemporaryDirectory(prefix="lightning_mem1-") as made:
        for name in FILES:
            try:
                content = base64.b64decode(files[name], validate=True)
            except (binascii.Error, TypeError, ValueError) as error:
                raise ValueError(f"expected '{name}' in base64, got: {error}") from None
            (Path(made) / name).write_bytes(content)
        yield Path(made)
