"""Which servers there are: those of the settings, and those of a file that may change while a run is under way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from lightning_mem1.engine.settings import ServerSettings

MAX_BYTES = 1 << 20


def addresses(settings: ServerSettings) -> list[str]:
    """Base addresses, each once: those of `urls`, then those of `urls_file`.

    Raises:
        ValueError: there is none, one cannot be, or the file cannot be read.
    """
    found = [*settings.urls, *(_of_file(settings.urls_file) if settings.urls_file else [])]
    if not found:
        where = f"in '{settings.urls_file}'" if settings.urls_file else "and no model.engine.server.urls_file"
        raise ValueError(f"no server: expected at least one address, got none {where}; set model.engine.server.urls")
    return list(dict.fromkeys(map(base_url, found)))


def _of_file(path: str) -> Sequence[str]:
    """The lines of a file, without empty ones and comments (#)."""
    try:
        content = Path(path).read_bytes()[:MAX_BYTES].decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"no list of servers: expected a text file with an address a line, got '{path}' ({error}); set "
            "model.engine.server.urls_file"
        ) from None
    lines = [line.partition("#")[0].strip() for line in content.splitlines()]
    return [line for line in lines if line]


def base_url(given: str) -> str:
    """An address without a path, checked.

    Raises:
        ValueError: it is no address of http or https, or holds a password.
    """
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(
            f"not a server: expected an address like http://127.0.0.1:8000, got '{given}'; set model.engine.server.urls"
        )
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            f"a password is in the address of {parts.hostname}: expected it in the environment; put it into the "
            "variable that model.engine.server.key_variable names"
        )
    return given.rstrip("/").removesuffix("/v1")
