"""Dense retrieval with sentence-transformers and FAISS (extra ``dense``): passages near a query in meaning.

E5 models were trained with "query: " and "passage: " before their texts; for models of that name they are put there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_mem1.context.sentence_encoder import Encoder
from lightning_mem1.environments.qa.retrieval.bm25 import scored
from lightning_mem1.environments.qa.retrieval.index_folder import Lines, check_note, write_note
from lightning_mem1.environments.qa.retrieval.passage import Passage
from lightning_mem1.io.atomic_files import atomic_folder

MAX_CHARS = 10_000
VERSION = "1"  # of what is encoded of a text; raise it with every change


class Dense:
    """Finds passages by the cosine of their embeddings (exact search).

    Args:
        passages: What can be found.
        model: A folder or a name of the hub.
        query_prefix: Put before a query; None for ``"query: "`` with E5 models and nothing else.
        passage_prefix: Put before a passage; None for ``"passage: "`` with E5 models and nothing else.

    Raises:
        ImportError: the extra is not installed.
        ValueError: there is no passage.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        model: str = "intfloat/e5-base-v2",
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
    ) -> None:
        if not passages:
            raise ValueError("nothing to index: expected at least 1 passage, got 0")
        self._load(model, query_prefix, passage_prefix)
        self.passages: Sequence[Any] = passages
        vectors = self._encoder([f"{self.passage_prefix}{p.contents}" for p in passages])
        self._index = self._faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(vectors)

    @classmethod
    def open(cls, folder: str | Path, corpus: str | None = None, name: str = "", model: str | None = None) -> Dense:
        """Open an index on disk, memory-mapped.

        Args:
            folder: Where it was saved.
            corpus: Fingerprint of the passages that are meant; None where any will do.
            name: What they are called.
            model: The model that is meant; None takes the index's own.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is of other passages or of another version, was made with another model, or is damaged.
        """
        path = check_note(folder, "dense", VERSION, corpus, name)
        made = json.loads((path / "dense.json").read_text())
        if model and model != made["model"]:
            raise ValueError(f"index '{path}' was made with '{made['model']}', got '{model}'; take another folder")
        opened = cls.__new__(cls)
        opened._load(**made)
        opened._index = opened._faiss.read_index(str(path / "vectors.faiss"), opened._faiss.IO_FLAG_MMAP)
        opened.passages = Lines(path)
        return opened

    def save(self, folder: str | Path, corpus: str = "") -> None:
        """Write the index with the fingerprint of its passages, see `atomic_folder`."""
        made = {"model": self.model, "query_prefix": self.query_prefix, "passage_prefix": self.passage_prefix}
        with atomic_folder(folder) as beside:
            self._faiss.write_index(self._index, str(beside / "vectors.faiss"))
            (beside / "dense.json").write_text(json.dumps(made))
            Lines.write(self.passages, beside)
            write_note(beside, "dense", VERSION, corpus, len(self.passages))

    def search(self, queries: Sequence[str], top_k: int = 3) -> list[list[Passage]]:
        """Return the nearest passages of each query; scores are cosines."""
        if not queries:
            return []
        vectors = self._encoder([f"{self.query_prefix}{query[:MAX_CHARS]}" for query in queries])
        scores, numbers = self._index.search(vectors, min(top_k, len(self.passages)))
        return [
            [scored(self.passages[int(i)], float(s)) for s, i in zip(row, found, strict=True) if i >= 0]
            for row, found in zip(scores, numbers, strict=True)
        ]

    def _load(self, model: str, query_prefix: str | None, passage_prefix: str | None) -> None:
        try:
            import faiss

            self._encoder = Encoder(model)
        except ImportError as error:
            raise ImportError(
                'dense retrieval needs sentence-transformers and faiss-cpu: pip install "lightning-mem1[dense]"'
            ) from error
        e5 = "e5" in Path(model).name.lower()
        self._faiss, self.model = faiss, model
        self.query_prefix = ("query: " if e5 else "") if query_prefix is None else query_prefix
        self.passage_prefix = ("passage: " if e5 else "") if passage_prefix is None else passage_prefix
