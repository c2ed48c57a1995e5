"""Values that a setting names by where they are, such as ``my_package.my_file.my_algorithm``."""

from __future__ import annotations

import difflib
import importlib
import sysconfig
import traceback
from pathlib import Path
from typing import Any

INSTALLED = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def load_dotted(name: str, key: str) -> Any:
    """The value that a dotted name stands for; its file is imported.

    Args:
        name: Module and name within it, e.g. ``my_package.my_file.my_algorithm``.
        key: The setting that holds the name, for the error.

    Raises:
        ValueError: there is no such module, it has no such name, or its own code fails: one line that says where.
    """
    module_name, _, attribute = name.rpartition(".")
    module = _imported(module_name, f"{key} '{name}'")
    if hasattr(module, attribute):
        return getattr(module, attribute)
    found = [each for each in vars(module) if not each.startswith("_")]
    nearest = difflib.get_close_matches(attribute, found, n=1)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"set {key} to one that it defines"
    raise ValueError(
        f"{key} '{name}' not found: '{_shown(getattr(module, '__file__', ''))}' has no '{attribute}'; {hint}"
    )


def _imported(module: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise ValueError(
                f"{what} not found: no module '{error.name}' in '{Path.cwd()}' or among the installed packages; "
                "run the command in the folder that has it, or set PYTHONPATH"
            ) from error
        raise ValueError(f"{what} cannot be imported: {_failure(error)}") from error
    except Exception as error:  # whatever a user's file raises
        raise ValueError(f"{what} cannot be imported: {_failure(error)}") from error


def _failure(error: Exception) -> str:
    """Where a user's file failed, and with what: ``my_file.py, line 3: NameError: name 'x' is not defined; fix it``."""
    if isinstance(error, SyntaxError):
        file, line, reason = error.filename or "", error.lineno, error.msg
    else:
        frames = [f for f in traceback.extract_tb(error.__traceback__)[1:] if not f.filename.startswith("<")]
        own = [f for f in frames if not f.filename.startswith((*INSTALLED, importlib.__path__[0]))] or frames
        file, line, reason = (own[-1].filename, own[-1].lineno, str(error)) if own else ("", None, str(error))
    return f"'{_shown(file)}', line {line}: {type(error).__name__}: {' '.join(reason.split())}; fix the file"


def _shown(file: str | None) -> str:
    """A path as short as it can be said from the working folder."""
    path = Path(file or "?")
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
