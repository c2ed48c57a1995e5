"""``mem1 serve-retriever``: serve a corpus to agents that search it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from lightning_mem1.environments.qa.retrieval.server import server
from lightning_mem1.io.redaction import shown


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted; returns the exit code."""
    parser = argparse.ArgumentParser(prog="mem1 serve-retriever", description=__doc__)
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
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return 1
    address = f"http://{given.host}:{started.server_port}"
    print(f"serving {len(retriever.passages):,} passages at {address}/retrieve and {address}/search", flush=True)
    return started.serve_until_interrupted()


def load(kind: str, corpus: str | None, index: str | None, model: str) -> Any:
    """The retriever of a command line.

    Raises:
        ValueError: neither a corpus nor an index is given.
    """
    from lightning_mem1.environments.qa.retrieval.bm25 import BM25, built
    from lightning_mem1.environments.qa.retrieval.corpus import distinct, read_corpus

    if corpus is None and index is None:
        raise ValueError("nothing to serve: expected --corpus or --index, got neither")

    def passages() -> Any:
        if corpus is None:
            raise FileNotFoundError(f"no index in '{index}': give --corpus as well to make it")
        return distinct(read_corpus(corpus))

    if kind == "bm25":
        return built(BM25, passages, index)
    from lightning_mem1.environments.qa.retrieval.dense import Dense

    return built(Dense, passages, index, model=model)
