"""Text to ids and back for many clients at once: no prompt, however long, keeps the others waiting."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from typing import Any

from lightning_mem1.context.chat_template import begins
from lightning_mem1.context.detokenizer import Detokenizer

FIRST_CHARS = 1 << 14  # of a text that is read at first; what is too long already is not read further
MARGIN = 64  # ids by which the beginning of a text may take more than the same part of the whole does


class TextCodec:
    """A tokenizer for the threads of a server, which one tokenizer is no place for: one for reading, one for writing.

    Args:
        tokenizer: Copied.
        max_tokens: Longest text that is read.
    """

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._reads, self._writes = copy.deepcopy(tokenizer), Detokenizer(copy.deepcopy(tokenizer))
        self._begins = begins(tokenizer)
        self._reading, self._writing = threading.Lock(), threading.Lock()

    def encode(self, text: str, begun: bool = False) -> list[int]:
        """The ids of a text, behind what the tokenizer begins texts with, its BOS for instance.

        Its beginning is read first, twice as much of it each time: 4 MB would take ten seconds, only to be refused.

        Args:
            text: May begin with it already.
            begun: Whether to add nothing.

        Raises:
            ValueError: it has more than `max_tokens` ids, or half a character, which JSON can spell.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("expected text of whole characters, got half of a surrogate pair") from None
        length = FIRST_CHARS
        while True:
            with self._reading:
                ids = self._reads.encode(text[:length], add_special_tokens=False)
            if len(ids) > self.max_tokens + (MARGIN if length < len(text) else 0):
                raise ValueError(
                    f"prompt is too long: expected at most {self.max_tokens} tokens, got more in {len(text)} characters"
                )
            if length >= len(text):
                first = len(self._begins)
                return list(ids) if begun or ids[:first] == self._begins else [*self._begins, *ids]
            length *= 2

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens included."""
        with self._writing:
            return self._writes(ids)
