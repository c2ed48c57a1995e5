"""``mem1 serve-retriever``: serve a corpus to agents that search it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from lightning_mem1.checks import PORT, check_number
from lightning_mem1.environments.qa.retrieval.corpus import Corpus
from lightning_mem1.environments.qa.retrieval.factory import make_retriever
from lightning_mem1.environments.qa.retrieval.server import server
from lightning_mem1.io.redaction import shown


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted; returns the exit code."""
    given = parser().parse_args(argv)
    try:
        check_number("--port", given.port, PORT)
        retriever = load(given.retriever, given.corpus, given.index, given.model)
        started = server(retriever, given.host, given.port)
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return 1
    address = f"http://{given.host}:{started.server_port}"
    print(f"serving {len(retriever.passages):,} passages at {address}/retrieve and {address}/search", flush=True)
    return started.serve_until_interrupted()


def parser(kind: type[argparse.ArgumentParser] = argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser of the command line, of a kind of parser."""
    made = kind("mem1 serve-retriever", description="Serve a corpus to agents that search it.")
    made.add_argument("--corpus", help="passages (.jsonl[.gz], .parquet) with title and text, or contents")
    made.add_argument("--index", help="folder of the index, made from the corpus when it is missing")
    made.add_argument("--retriever", choices=("bm25", "dense"), default="bm25")
    made.add_argument("--model", default="intfloat/e5-base-v2", help="embedding model of the dense retriever")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on")
    made.add_argument("--port", type=int, default=8000, help="0 for any free one")
    return made


def load(kind: str, corpus: str | None, index: str | None, model: str) -> Any:
    """The retriever of a command line.

    Raises:
        ValueError: neither a corpus nor an index is given.
    """
    if corpus is None and index is None:
        raise ValueError("nothing to serve: expected --corpus or --index, got neither")
    return make_retriever(kind, None if corpus is None else Corpus.of_file(corpus), index, model)
