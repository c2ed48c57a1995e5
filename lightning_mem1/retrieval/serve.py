"""``python -m lightning_mem1.retrieval.serve``: serves an index over Search-R1's protocol at ``/retrieve``, and over
Serper's at ``/search``.

It listens on this machine only unless told otherwise: it has no password.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from lightning_mem1.http.server import Answers, JsonHandler, JsonServer
from lightning_mem1.http.server import server as serving
from lightning_mem1.retrieval.passage import Passage, Retriever

MAX_TOP_K = 100
MAX_QUERIES = 1024


class RetrieveHandler(JsonHandler):
    """Answers ``POST /retrieve`` and ``POST /search``, and says on any GET that it is up."""

    retriever: Retriever

    def posts(self) -> Answers:
        """Search."""
        return {"/retrieve": self._retrieve, "/search": self._search}

    def gets(self) -> Answers:
        """Say that the server is up."""
        return {self.path: lambda _: {"status": "up"}}

    def _retrieve(self, body: Any) -> Any:
        """Search-R1's protocol."""
        queries, top_k, scores = read_request(body)
        found = self.retriever.search(queries, top_k)
        return {"result": [[_hit(passage, scores) for passage in passages] for passages in found]}

    def _search(self, body: Any) -> Any:
        """Serper's protocol, so that web environments run without the web; any key will do."""
        given = body if isinstance(body, dict) else {}
        (query,), top_k, _ = read_request({"queries": [given.get("q")], "topk": given.get("num", 10)})
        (found,) = self.retriever.search([query], top_k)
        return {"organic": [{"title": p.title, "link": p.url, "snippet": p.text} for p in found]}


def _hit(passage: Passage, scores: bool) -> dict[str, Any]:
    document = {"contents": passage.contents}
    return {"document": document, "score": passage.score} if scores else document


def read_request(body: Any) -> tuple[list[str], int, bool]:
    """Queries, number of passages and whether scores are wanted.

    Raises:
        ValueError: the body is not ``{"queries": [...], "topk": 3, "return_scores": true}``.
    """
    queries = body.get("queries") if isinstance(body, dict) else None
    if not isinstance(queries, list) or len(queries) > MAX_QUERIES or not all(isinstance(q, str) for q in queries):
        raise ValueError(f"expected 'queries' with at most {MAX_QUERIES} strings, got something else")
    top_k = 3 if body.get("topk") is None else body["topk"]
    if isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= MAX_TOP_K:
        raise ValueError(f"expected 'topk' from 1 to {MAX_TOP_K}, got {top_k!r}")
    return queries, top_k, bool(body.get("return_scores", False))


def server(retriever: Retriever, host: str = "127.0.0.1", port: int = 0) -> JsonServer:
    """A server that is ready to `serve_forever`; port 0 takes a free one, see its `server_port`."""
    return serving(RetrieveHandler, host, port, retriever=retriever)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lightning_mem1.retrieval.serve", description=__doc__)
    parser.add_argument("--corpus", help="passages (.jsonl[.gz], .parquet) with title and text, or contents")
    parser.add_argument("--index", help="folder of the index, made from the corpus when it is missing")
    parser.add_argument("--retriever", choices=("bm25", "dense"), default="bm25")
    parser.add_argument("--model", default="intfloat/e5-base-v2", help="embedding model of the dense retriever")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args(argv)
    try:
        retriever = load(given.retriever, given.corpus, given.index, given.model)
        started = server(retriever, given.host, given.port)
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    address = f"http://{given.host}:{started.server_port}"
    print(f"serving {len(retriever.passages):,} passages at {address}/retrieve and {address}/search", flush=True)
    return started.serve_until_interrupted()


def load(kind: str, corpus: str | None, index: str | None, model: str) -> Any:
    """The retriever of a command line.

    Raises:
        ValueError: neither a corpus nor an index is given.
    """
    from lightning_mem1.retrieval.bm25 import BM25, built
    from lightning_mem1.retrieval.corpus import distinct, read_corpus

    if corpus is None and index is None:
        raise ValueError("nothing to serve: expected --corpus or --index, got neither")

    def passages() -> Any:
        if corpus is None:
            raise FileNotFoundError(f"no index in '{index}': give --corpus as well to make it")
        return distinct(read_corpus(corpus))

    if kind == "bm25":
        return built(BM25, passages, index)
    from lightning_mem1.retrieval.dense import Dense

    return built(Dense, passages, index, model=model)


if __name__ == "__main__":
    sys.exit(main())
