"""The retriever that a setting names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_mem1.environments.qa.retrieval.bm25 import BM25
from lightning_mem1.environments.qa.retrieval.corpus import Corpus
from lightning_mem1.environments.qa.retrieval.index_folder import READY, REMEMBERED
from lightning_mem1.environments.qa.retrieval.passage import Retriever
from lightning_mem1.environments.qa.retrieval.web import Web, WebSettings

INDEXED = ("bm25", "dense")  # search passages of our own
KINDS = (*INDEXED, "web")
ADDRESS = ("http://", "https://")
DENSE_MODEL = "intfloat/e5-base-v2"


def check_retriever(kind: str) -> None:
    """Raise ValueError for a retriever that does not exist."""
    if kind not in KINDS and not kind.startswith(ADDRESS):
        raise ValueError(
            f"unknown retriever: expected bm25, dense, web or an address, got '{kind}'; set data.retriever"
        )


def check_passages(kind: str, corpus: str | None, index: str | None) -> None:
    """Raise ValueError for passages or an index of a retriever that searches others: it would never look at them."""
    ours = {"corpus": corpus, "index": index}
    given = next((name for name, value in ours.items() if value is not None), None)
    if given and kind not in INDEXED:
        where = "the web" if kind == "web" else f"what '{kind}' serves"
        raise ValueError(
            f"data.{given} would not be searched: expected data.retriever {' or '.join(INDEXED)}, got {kind}, which "
            f"searches {where}; drop data.{given}, or set data.retriever"
        )


def make_retriever(
    kind: str,
    corpus: Corpus | None,
    index: str | None = None,
    dense_model: str = DENSE_MODEL,
    web: WebSettings | None = None,
) -> Retriever:
    """Make a retriever.

    Args:
        kind: ``bm25``, ``dense``, ``web``, or the address of a server that speaks Search-R1's protocol.
        corpus: The passages of ``bm25`` and ``dense``; None takes what is in the folder `index`.
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
        found: Retriever = built(BM25, corpus, index)
    elif kind == "dense":
        from lightning_mem1.environments.qa.retrieval.dense import Dense

        found = built(Dense, corpus, index, model=dense_model)
    else:
        from lightning_mem1.environments.qa.retrieval.remote import RemoteRetriever

        found = RemoteRetriever(kind)
    return found


def built(kind: Any, corpus: Corpus | None, folder: str | Path | None, **settings: Any) -> Any:
    """An index of passages in memory, or the one in a folder, made there when it is missing.

    Args:
        kind: `BM25` or `dense.Dense`.
        corpus: The passages; None for those of the index in the folder, whatever they are.
        folder: Where the index is kept; None for memory only.
        settings: Further arguments of `kind`.

    Raises:
        FileNotFoundError: there is neither an index nor a corpus to make it of.
        ValueError: the folder holds something else: the index of another corpus or version, or no index.
    """
    if folder is None:
        return kind(_given(corpus, folder).read(), **settings)
    path = Path(folder)
    if (path / READY).is_file():
        mark = None if corpus is None else corpus.fingerprint(path / REMEMBERED)
        return kind.open(path, mark, "" if corpus is None else corpus.name, **settings)
    corpus = _given(corpus, folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(
            f"cannot make an index in '{path}': expected an empty folder or none, got other files; name another"
        )
    kind(corpus.read(), **settings).save(path, mark := corpus.fingerprint())
    return kind.open(path, mark, corpus.name, **settings)


def _given(corpus: Corpus | None, folder: str | Path | None) -> Corpus:
    if corpus is None:
        raise FileNotFoundError(f"no index in '{folder}': give --corpus as well to make it")
    return corpus
