"""A retriever behind Search-R1's protocol: ``POST /retrieve`` with queries, topk and return_scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lightning_mem1.environments.qa.retrieval.passage import Passage, from_contents
from lightning_mem1.environments.qa.retrieval.service import RetryPolicy, ask


class RemoteRetriever:
    """Asks a server. After it failed for good it is tried once per search until it answers, so that a dead one ends a
    batch of episodes soon.

    Args:
        address: E.g. ``http://127.0.0.1:8000/retrieve``.
        patience: Time-out and retries.
    """

    def __init__(self, address: str, patience: RetryPolicy = RetryPolicy()) -> None:  # noqa: B008
        self.address, self.patience = address, patience
        self.down = False

    def search(self, queries: Sequence[str], top_k: int = 3) -> list[list[Passage]]:
        """Return the best passages of each query.

        Raises:
            RetrievalError: no good reply after all tries.
        """
        question = {"queries": list(queries), "topk": top_k, "return_scores": True}
        patience = replace(self.patience, num_retries=0) if self.down else self.patience
        self.down = True
        found = ask(self.address, question, lambda reply: read_result(reply, len(queries), top_k), patience)
        self.down = False
        return found


def read_result(reply: Any, num_queries: int, top_k: int) -> list[list[Passage]]:
    """Take a reply apart: ``{"result": [[{"document": {"contents": ...}, "score": ...}, ...], ...]}``.

    Raises:
        ValueError: it has another form, or not one list of at most `top_k` documents per query.
    """
    result = reply.get("result") if isinstance(reply, dict) else None
    if not isinstance(result, list) or len(result) != num_queries:
        got = f"{len(result)} lists" if isinstance(result, list) else type(result).__name__
        raise ValueError(f"expected 'result' with one list for each of {num_queries} queries, got {got}")
    if any(not isinstance(found, list) or len(found) > top_k for found in result):
        raise ValueError(f"expected at most {top_k} documents per query, got more or something else")
    return [[_passage(hit) for hit in found] for found in result]


def _passage(hit: Any) -> Passage:
    hit = hit if isinstance(hit, dict) and "document" in hit else {"document": hit}  # without return_scores
    document, score = hit["document"], hit.get("score", 0.0)
    contents = document.get("contents") if isinstance(document, dict) else None
    if not isinstance(contents, str):
        raise ValueError("expected a document with 'contents', got something else")
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise ValueError(f"expected a number as score, got {score!r}")
    return from_contents(contents, float(score))
