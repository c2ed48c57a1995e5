"""Requests to an engine, and running them to their end: shared by the tests of engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_mem1.types import Completion, Engine, GenerationRequest


def run(engine: Engine, requests: Sequence[GenerationRequest]) -> dict[int, Completion]:
    """Submit requests and step until nothing is pending; completions by session."""
    for each in requests:
        engine.submit(each)
    done = []
    while engine.pending:
        done += engine.step()
    return {completion.session: completion for completion in done}


def request(session: int, context: Sequence[int], seed: int = 0, n: int = 8, **kw: Any) -> GenerationRequest:
    """A request for at most `n` new tokens."""
    return GenerationRequest(session, list(context), max_new_tokens=n, seed=seed, **kw)
