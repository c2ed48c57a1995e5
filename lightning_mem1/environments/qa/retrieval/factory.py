"""The retriever that a setting names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning_mem1.environments.qa.retrieval.bm25 import BM25, built
from lightning_mem1.environments.qa.retrieval.passage import Passage, Retriever
from lightning_mem1.environments.qa.retrieval.web import Web, WebSettings

KINDS = ("bm25", "dense", "web")
ADDRESS = ("http://", "https://")
DENSE_MODEL = "intfloat/e5-base-v2"


def check_retriever(kind: str) -> None:
    """Raise ValueError for a retriever that does not exist."""
    if kind not in KINDS and not kind.startswith(ADDRESS):
        raise ValueError(
            f"unknown retriever: expected bm25, dense, web or an address, got '{kind}'; set data.retriever"
        )


def make_retriever(
    kind: str,
    passages: Callable[[], Sequence[Passage]],
    index: str | None = None,
    dense_model: str = DENSE_MODEL,
    web: WebSettings | None = None,
) -> Retriever:
    """Make a retriever.

    Args:
        kind: ``bm25``, ``dense``, ``web``, or the address of a server that speaks Search-R1's protocol.
        passages: Makes the passages of ``bm25`` and ``dense``; called only when they are needed.
        index: Folder of their index, see `built`.
        dense_model: Model of ``dense``.
        web: How ``web`` searches.

    Raises:
        ValueError: an unknown kind.
    """
    check_retriever(kind)
    if kind == "web":
        return Web(web or WebSettings())
    if kind == "bm25":
        found: Retriever = built(BM25, passages, index)
    elif kind == "dense":
        from lightning_mem1.environments.qa.retrieval.dense import Dense

        found = built(Dense, passages, index, model=dense_model)
    else:
        from lightning_mem1.environments.qa.retrieval.remote import RemoteRetriever

        found = RemoteRetriever(kind)
    return found
