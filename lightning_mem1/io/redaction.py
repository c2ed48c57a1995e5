"""What must not be logged, taken out: passwords in addresses, keys by their name, keys of the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
SECRET_NAME = re.compile(r"(?:^|_)(?:api_?key|passw(?:or)?d|secret|(?:access|auth|api|hub)_token|credentials?)$", re.I)
SECRET_VARIABLE = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.I)
SHORTEST_SECRET = 8  # characters; shorter values of variables stand in ordinary words
USERINFO = re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)")


def redacted(text: str) -> str:
    """A text without passwords in addresses and without the values of the environment's keys.

    >>> redacted("postgresql://me:pa55@host/db")
    'postgresql://***@host/db'
    """
    for name, value in os.environ.items():
        if SECRET_VARIABLE.search(name) and len(value) >= SHORTEST_SECRET:
            text = text.replace(value, HIDDEN)
    return USERINFO.sub(HIDDEN, text)


def root(error: BaseException) -> BaseException:
    """The error that the others were raised for."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def reason(error: BaseException) -> str:
    """The first words of what went wrong in the first place, in one line."""
    return redacted(" ".join(str(root(error)).split()))[:120]


def redacted_settings(settings: Any, name: str = "") -> Any:
    """Settings without what their names or their values say is secret.

    Args:
        settings: A dict, a list or a plain value, nested as in a config.
        name: Under which it stands.
    """
    if isinstance(settings, Mapping):
        return {key: redacted_settings(value, str(key)) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [redacted_settings(value, name) for value in settings]
    if isinstance(settings, str):
        return HIDDEN if settings and SECRET_NAME.search(name.rpartition(".")[2]) else redacted(settings)
    return settings
