"""From ids back to text, so that what was read of a turn stays as it was when more of it comes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

PARTIAL = "\ufffd"  # what a character reads as whose bytes are not all there


class Detokenizer:
    """Ids -> text, special tokens included and spaces as they are.

    Sentence-piece tokenizers spell rare characters in byte tokens. Their decoders give up a whole run of those when its
    last character is cut off; here the characters before it stay::

        <0xC3> <0xA9>             é
        <0xC3> <0xA9> <0xC3>      é and a mark for what is missing

    Args:
        tokenizer: A transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids = byte_tokens(tokenizer)
        self._values = {number: value for value, number in enumerate(self._ids)}

    def __call__(self, ids: Sequence[int]) -> str:
        """The text of some ids."""
        whole = self._whole(ids) if self._ids else list(ids)
        # "clean up" would take out spaces that were written
        decode = self._tokenizer.decode
        return str(decode(whole, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _whole(self, ids: Iterable[int]) -> list[int]:
        """The ids with every run of byte tokens made valid UTF-8."""
        found: list[int] = []
        for spelled, run in groupby(ids, key=self._values.__contains__):
            if spelled:
                run = iter(self._spelled(bytes(self._values[each] for each in run)))
            found.extend(run)
        return found

    def _spelled(self, run: bytes) -> list[int]:
        return [self._ids[value] for value in run.decode("utf-8", "replace").encode("utf-8")]


def byte_tokens(tokenizer: Any) -> list[int]:
    """Ids of the tokens ``<0x00>`` to ``<0xFF>``, in this order; empty where a tokenizer has none."""
    names = [f"<0x{value:02X}>" for value in range(256)]
    ids = tokenizer.convert_tokens_to_ids(names)
    known = None not in ids and tokenizer.convert_ids_to_tokens(ids) == names
    return list(ids) if known else []
