"""What a dotted name in a config means: ``my_file.plan`` is `plan` of the module `my_file`."""

from __future__ import annotations

import difflib
import importlib
import os
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

MAX_REASON = 200  # characters of what somebody else's code says
PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
INSTALLED = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "purelib", "platlib"))


def imported(name: str, what: str, key: str) -> Any:
    """Import what a dotted name means.

    Args:
        name: ``module.attribute``, the module with as many dots as it has.
        what: What is expected there, for messages.
        key: The setting that holds the name.

    Raises:
        ValueError: one line: no such module, no such attribute, or a file that cannot be imported, with file and line.
    """
    module_name, _, attribute = name.rpartition(".")
    module = _module(module_name, name, what, key)
    if not hasattr(module, attribute):
        public = [each for each in vars(module) if not each.startswith("_")]
        nearest = difflib.get_close_matches(attribute, public, n=1)
        hint = f"; did you mean '{module_name}.{nearest[0]}'?" if nearest else f"; set {key}"
        raise ValueError(f"no such {what}: expected '{attribute}' in '{module.__file__}', got none{hint}")
    return getattr(module, attribute)


def _module(module_name: str, name: str, what: str, key: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):  # of what the file imports
            raise ValueError(_broken(module_name, key, error)) from error
        raise ValueError(
            f"no such {what}: expected a word, or a dotted name of what Python can import, got '{name}', and there is "
            f"no module '{error.name}'; set {key}, or put its folder on PYTHONPATH"
        ) from error
    except Exception as error:
        raise ValueError(_broken(module_name, key, error)) from error


def _broken(module_name: str, key: str, error: Exception) -> str:
    return f"cannot import '{module_name}', which {key} names: {reason(error)}; fix that file"


def reason(error: BaseException) -> str:
    """What somebody's own code raised, and where: ``KeyError: 'x' ('my_file.py', line 3)``."""
    if isinstance(error, SyntaxError):
        text, file, line = f"{type(error).__name__}: {error.msg}", error.filename, error.lineno
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
        text = f"{type(error).__name__}: {error}"
        frames = [frame for frame in frames if not frame.filename.startswith(INSTALLED)] or frames  # theirs, if any
        file, line = (frames[-1].filename, frames[-1].lineno) if frames else (None, None)
    said = " ".join(text.split())[:MAX_REASON]
    return f"{said} ('{file}', line {line})" if file else said


def _is_ours(file: str) -> bool:
    """Whether a frame is one of the import system or of this package, which only called what failed."""
    return file.startswith(("<frozen ", PACKAGE)) or file == importlib.__file__
