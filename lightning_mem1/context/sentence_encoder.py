"""Texts as unit vectors, by a sentence-transformers model in this process (extra ``dense``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Encoder:
    """Embeds texts; the cosine of two of them is their dot product.

    Args:
        model: A folder or a name of the hub.

    Raises:
        ImportError: the extra is not installed.
    """

    def __init__(self, model: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ImportError(
                'dense embeddings need sentence-transformers: pip install "lightning-mem1[dense]"'
            ) from error
        self._model = SentenceTransformer(
            model, device="cpu", model_kwargs={"use_safetensors": True}, trust_remote_code=False
        )

    def __call__(self, texts: Sequence[str]) -> Any:
        """Return a float32 array of shape (texts, dimensions)."""
        return self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
