"""Recorded choices of experts: tensors as bytes, and what a turn has in common with the one before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from lightning_mem1.types import ExpertChoices

UNKNOWN = -1  # of a token that no pass has run: routers choose


def pack(chosen: Tensor) -> ExpertChoices:
    """Choices (n, width) of the first n tokens of a context, uint8 or int16."""
    array = chosen.cpu().numpy()
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return ExpertChoices(array.tobytes(), chosen.shape[1], array.itemsize)


def shortened(choices: ExpertChoices, before: ExpertChoices | None) -> ExpertChoices:
    """The choices of a turn without the tokens at its beginning whose choices are those of the turn before.

    Args:
        choices: All of the turn's.
        before: All of those of the turn before; None for a first turn.
    """
    if before is None:
        return choices
    a, b = _rows(choices), _rows(before)
    count = min(len(a), len(b))
    alike = (a[:count] == b[:count]).all(axis=1)
    start = count if alike.all() else int(alike.argmin())
    return ExpertChoices(a[start:].tobytes(), choices.width, choices.itemsize, start)


def unpacked(turns: Iterable[ExpertChoices | None]) -> Iterator[Tensor | None]:
    """All choices (n, width) of each turn of a trajectory, int16; None for turns without any.

    Raises:
        ValueError: a turn that leaves to the one before it what that has not.
    """
    before: np.ndarray | None = None
    for choices in turns:
        if choices is None:
            before = None
            yield None
            continue
        rows = _rows(choices)
        if choices.start:
            if before is None or len(before) < choices.start:
                raise ValueError(
                    f"choices of experts are incomplete: expected {choices.start} tokens in the turn before, got "
                    f"{0 if before is None else len(before)}"
                )
            rows = np.concatenate([before[: choices.start], rows])
        before = rows
        yield torch.from_numpy(rows.astype(np.int16))


def _rows(choices: ExpertChoices) -> np.ndarray:
    kind = "<u1" if choices.itemsize == 1 else "<i2"
    return np.frombuffer(choices.data, dtype=kind).reshape(-1, choices.width)
