"""``mem1 serve-retriever``: serves an index over Search-R1's protocol at ``/retrieve``, and over
Serper's at ``/search``.

It listens on this machine only by default: it has no password.
"""

from __future__ import annotations

from typing import Any

from lightning_mem1.environments.qa.retrieval.passage import Passage, Retriever
from lightning_mem1.io.json_server import Answers, JsonHandler, JsonServer
from lightning_mem1.io.json_server import server as serving

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
        raise ValueError(f"expected 'topk' from 1 to {MAX_TOP_K}, got {top_k!r:.80}")
    return queries, top_k, bool(body.get("return_scores", False))


def server(retriever: Retriever, host: str = "127.0.0.1", port: int = 0) -> JsonServer:
    """A server that is ready to `serve_forever`; port 0 takes a free one, see its `server_port`."""
    return serving(RetrieveHandler, host, port, retriever=retriever)
