"""One try to get a reply from an HTTP service: a deadline, a bound on the size, no redirects, no proxies.

It raises one of `TROUBLES` when no whole reply came in time; whoever calls decides what is worth another try.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

# refused, reset, too slow, a status other than 200 (urllib's HTTPError); no JSON or not to the point; nested too deep
TROUBLES = (OSError, ValueError, HTTPException, RecursionError)
FINAL = range(400, 500)  # the request itself is wrong: asking again would not help
AGAIN = (408, 429)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))


def fetch(
    address: str, question: Any = None, headers: Mapping[str, str] | None = None, *, timeout_s: float, max_bytes: int
) -> bytes:
    """The whole reply; a server that drips is cut off like one that is silent.

    Args:
        address: Where to.
        question: Plain values, posted as JSON; None to get.
        headers: Further headers, e.g. a key.
        timeout_s: From the first byte sent to the last one received.
        max_bytes: Of the reply.

    Raises:
        urllib.error.HTTPError: a status other than success; it has to be closed.
        OSError, ValueError, HTTPException: see `TROUBLES`.
    """
    body = None if question is None else json.dumps(question).encode()
    sent = {**({} if body is None else {"Content-Type": "application/json"}), **(headers or {})}
    deadline = time.monotonic() + timeout_s
    with _OPENER.open(urllib.request.Request(address, body, sent), timeout=timeout_s) as reply:
        return read_bounded(reply, deadline, max_bytes)


def is_final(status: int) -> bool:
    """Whether a status says that the request itself is wrong."""
    return status in FINAL and status not in AGAIN


def one_line(error: BaseException) -> str:
    """What went wrong, for a message; bounded."""
    if isinstance(error, urllib.error.HTTPError):
        return f"status {error.code}"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def read_bounded(reply: Any, deadline: float, max_bytes: int) -> bytes:
    """Read a reply to its end.

    Raises:
        TimeoutError: the deadline (of `time.monotonic`) has passed.
        ValueError: it is longer than `max_bytes`, or shorter than it promised.
    """
    parts, length = [], 0
    while part := reply.read1(65536):
        parts.append(part)
        length += len(part)
        if length > max_bytes:
            raise ValueError(f"reply too long: expected at most {max_bytes} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("the reply did not end in time")
    promised = reply.headers.get("Content-Length")
    if promised and promised.isdigit() and length < int(promised):
        raise ValueError(f"reply cut short: expected {promised} bytes, got {length}")
    return b"".join(parts)
