"""A disk that is full is named with the file that did not fit, and with what to do."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room, none left of a quota, none for a file of this size
ADVICE = "make room and repeat the command; a training resumes from its last checkpoint with --ckpt_path last"


@contextlib.contextmanager
def room_for(path: str | Path) -> Iterator[None]:
    """Write a file, or into a folder.

    Raises:
        OSError: one line with the path, where there is no room for it.
    """
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        raise OSError(f"cannot write '{path}': expected room on the disk, got '{reason(error)}'; {ADVICE}") from error


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk is full, be it of Python or of safetensors, whose errors are no OSError."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return type(error).__name__ == "SafetensorError" and any(f"(os error {code})" in str(error) for code in FULL)


def reason(error: BaseException) -> str:
    """``No space left on device``"""
    code = error.errno if isinstance(error, OSError) else next(c for c in FULL if f"(os error {c})" in str(error))
    return os.strerror(code or errno.ENOSPC)
