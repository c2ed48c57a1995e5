"""One way to call a JSON service: time-outs, a bound on the size, few retries with growing pauses, no redirects.

What does not come in time, not whole or not as JSON ends in a `RetrievalError` that says what was expected and what
came; nothing is ever made up in its place. Keys travel in headers and are never part of a message.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, TypeVar

from lightning_mem1.retrieval.passage import RetrievalError

T = TypeVar("T")
FINAL = range(400, 500)  # the request itself is wrong: asking again would not help
AGAIN = (408, 429)


@dataclass(frozen=True)
class Patience:
    """How long a service is waited for.

    Attributes:
        timeout_s: Of one try, from the first byte sent to the last one received.
        num_retries: Further tries after the first.
        pause_s: Before the first retry; doubled before each further one.
        max_bytes: Of one reply.
    """

    timeout_s: float = 10.0
    num_retries: int = 3
    pause_s: float = 0.25
    max_bytes: int = 8 << 20


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))


def ask(
    address: str,
    question: Any,
    read: Callable[[Any], T],
    patience: Patience = Patience(),  # noqa: B008
    headers: Mapping[str, str] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Post `question` as JSON and return what `read` makes of the reply.

    Args:
        address: Where to.
        question: Plain values.
        read: Takes the reply apart; a ValueError of it means that the reply is no good, which is retried as well.
        patience: Time-out and retries.
        headers: Further headers, e.g. a key.
        sleep: Waits between tries.

    Raises:
        RetrievalError: no good reply after all tries; at once when the service refuses the request (4xx).
    """
    body = json.dumps(question).encode()
    sent = {"Content-Type": "application/json", **(headers or {})}
    problem = ""
    for attempt in range(patience.num_retries + 1):
        if attempt:
            sleep(patience.pause_s * 2 ** (attempt - 1))
        try:
            return read(json.loads(_fetch(urllib.request.Request(address, body, sent), patience)))
        except urllib.error.HTTPError as error:
            error.close()
            problem = f"status {error.code}"
            if error.code in FINAL and error.code not in AGAIN:
                break
        except (
            OSError,
            ValueError,
            HTTPException,
            RecursionError,
        ) as error:  # refused, reset, too slow; no JSON or not to the point
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    raise RetrievalError(
        f"no good reply from {address}: expected JSON within {patience.timeout_s:g} s, got {problem} "
        f"after {attempt + 1} tries; is the server up?"
    )


def _fetch(request: urllib.request.Request, patience: Patience) -> bytes:
    """The whole reply; a server that drips is cut off like one that is silent."""
    deadline = time.monotonic() + patience.timeout_s
    with _OPENER.open(request, timeout=patience.timeout_s) as reply:
        return read_bounded(reply, deadline, patience.max_bytes)


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
