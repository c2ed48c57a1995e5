"""Names a number that is too large to be one: Python reads whole numbers of any length, a float holds 308 digits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_HUGE = re.compile(r"(?:^|([\w.]+)\s*[:=]\s*|(?<=[\s\[,-]))([-+]?\d[\d_]{308,})", re.MULTILINE)
SHOWN = 12  # digits


def explained(config: str | None, options: Iterable[tuple[str, str]]) -> ValueError | None:
    """What to say where a number was too large for whatever took it; None when no setting has so many digits.

    Args:
        config: The YAML file, None without one.
        options: Names and values of the command line.
    """
    for name, value in options:
        if found := _HUGE.search(value):
            return _error(name, found[2], "the command line")
    if config and (found := _HUGE.search(text := Path(config).read_text(encoding="utf-8"))):
        return _error(
            found[1] or "a setting", found[2], f"'{config}', line {text.count(chr(10), 0, found.start(2)) + 1}"
        )
    return None


def _error(key: str, digits: str, where: str) -> ValueError:
    return ValueError(
        f"{key} too large: expected a number of at most 308 digits, got {digits[:SHOWN]}... with {len(digits)} in "
        f"{where}; set {key}"
    )
