"""Packages that an adapter needs and that the package itself does without."""

from __future__ import annotations

import importlib
from typing import Any


def needed(module: str, package: str, extra: str, what: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: What is imported.
        package: Its name where it is installed from.
        extra: The extra of this package that has it.
        what: Whose environments, for the message.

    Raises:
        ValueError: one line: it is not installed, or it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        got = "none" if missing else f"{type(error).__name__}: {error}"
        raise ValueError(
            f"environments of {what} need its package: expected {package}, got {got}; "
            f"pip install 'lightning-mem1[{extra}]'"
        ) from None
