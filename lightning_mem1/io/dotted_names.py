"""What a dotted name in a config means: ``my_file.plan`` is `plan` of the module `my_file`."""

from __future__ import annotations

import difflib
import importlib
from types import ModuleType
from typing import Any

from lightning_mem1.io.own_code import RAISED, told


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
    if not all(each.isidentifier() for each in name.split(".")) or not module_name:
        raise ValueError(
            f"no such {what}: expected a dotted name such as my_file.my_{what.split()[-1]}, got {name!r:.80}; set {key}"
        )
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
    except RAISED as error:
        raise ValueError(_broken(module_name, key, error)) from error


def _broken(module_name: str, key: str, error: BaseException) -> str:
    return f"cannot import '{module_name}', which {key} names: {told(error)}; fix that file"
