"""A retriever's service: what does not come in time, not whole or not as JSON ends in a `RetrievalError`.

It says what was expected and what came; nothing is ever made up in its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lightning_mem1.environments.qa.retrieval.passage import RetrievalError
from lightning_mem1.io import json_service
from lightning_mem1.io.json_service import RetryPolicy as RetryPolicy
from lightning_mem1.io.json_service import ServiceError

T = TypeVar("T")


def ask(
    address: str,
    question: Any,
    read: Callable[[Any], T],
    patience: RetryPolicy = RetryPolicy(),  # noqa: B008
    headers: Mapping[str, str] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Post `question` as JSON and return what `read` makes of the reply; arguments as of `json_service.ask`.

    Raises:
        RetrievalError: no good reply after all tries; at once when the service refuses the request (4xx).
    """
    try:
        return json_service.ask(address, question, read, patience, headers, sleep)
    except ServiceError as error:
        raise RetrievalError(str(error)) from None
