"""One way to call a JSON service: time-outs, a bound on the size, few retries with growing pauses, no redirects.

Keys travel in headers and are never part of a message.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from lightning_mem1.io.http_client import TROUBLES, StatusError, fetch, is_final, one_line

T = TypeVar("T")


class ServiceError(RuntimeError):
    """A service did not answer, or not to the point."""


@dataclass(frozen=True)
class RetryPolicy:
    """How long a service is waited for.

    Attributes:
        timeout_s: Of one try, from looking for the address to the last byte received.
        num_retries: Further tries after the first.
        pause_s: Before the first retry; doubled before each further one.
        max_bytes: Of one reply.
    """

    timeout_s: float = 10.0
    num_retries: int = 3
    pause_s: float = 0.25
    max_bytes: int = 8 << 20


def ask(
    address: str,
    question: Any,
    read: Callable[[Any], T],
    patience: RetryPolicy = RetryPolicy(),  # noqa: B008
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
        ServiceError: no good reply after all tries; at once when the service refuses the request (4xx).
    """
    problem, replied = "", False
    for attempt in range(patience.num_retries + 1):
        if attempt:
            sleep(patience.pause_s * 2 ** (attempt - 1))
        try:
            reply = fetch(address, question, headers, timeout_s=patience.timeout_s, max_bytes=patience.max_bytes)
            return read(json.loads(reply))
        except TROUBLES as error:
            problem = one_line(error)
            replied = not isinstance(error, OSError) or isinstance(error, StatusError)
            if isinstance(error, StatusError) and is_final(error.status):
                break
    raise ServiceError(
        f"no good reply from {address}: expected JSON within {patience.timeout_s:g} s, got {problem} "
        f"after {attempt + 1} tries; is {'it the right service' if replied else 'the server up'}?"
    )
