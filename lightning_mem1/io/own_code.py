"""Which line of the user's own code failed, and what it said.

A user's file may raise anything, `sys.exit` and exceptions that cannot be printed among them.
"""

from __future__ import annotations

import importlib
import os
import sysconfig
import traceback
from pathlib import Path

PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
INSTALLED = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "purelib", "platlib"))
RAISED = (Exception, SystemExit, GeneratorExit)  # whatever a file may raise, but for Ctrl-C
MAX_MESSAGE = 200


def message(error: BaseException) -> str:
    """What an exception says in one line, whatever its `__str__` does.

    >>> message(KeyError("x")), message(SystemExit("no licence"))
    ("'x'", 'no licence')
    """
    try:
        return " ".join(str(error).split())
    except RAISED:
        return "(its message cannot be printed)"


def place(error: BaseException) -> tuple[str, int] | None:
    """File and line of the last frame that is the user's, else of the last one that is not of this package.

    Returns:
        None when only this package and the import system were there.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _only_called(frame.filename)]
    theirs = [frame for frame in frames if not frame.filename.startswith(INSTALLED)] or frames
    return (theirs[-1].filename, theirs[-1].lineno or 0) if theirs else None


def raised_by_user(error: BaseException) -> bool:
    """Whether an exception was raised in a file of the user's, neither of this package nor of an installed one."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen ")]  # exit(3)
    return bool(frames) and not _only_called(file := frames[-1].filename) and not file.startswith(INSTALLED)


def raised_here(error: BaseException) -> bool:
    """Whether an exception was raised in a file of this package."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(PACKAGE)


def told(error: BaseException) -> str:
    """Kind, message and place: ``KeyError: 'x' ('my_file.py', line 3)``."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ('{error.filename}', line {error.lineno})"
    said, found = f"{type(error).__name__}: {message(error)}".removesuffix(": ")[:MAX_MESSAGE], place(error)
    return f"{said} ('{found[0]}', line {found[1]})" if found else said


def _only_called(file: str) -> bool:
    """Whether a frame is one of the import system or of this package, which only called what failed."""
    return file.startswith(("<frozen ", PACKAGE)) or file == importlib.__file__
