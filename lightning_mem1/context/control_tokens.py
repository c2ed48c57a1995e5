"""Text of strangers that would become control tokens: ends of text, roles of a chat, tags that are one token."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from lightning_mem1.context.continuation import SPACE

MARK = "\u2039"  # in the place where a control token would begin; no normal form of Unicode makes "<" of it
Span = tuple[int, int]


class ControlTokens:
    """The control tokens of a tokenizer, which no text from outside may become.

    These are its special tokens, and added ones unless they are a plain word, spaces or a single character. The unknown
    token is none where it has no other part to play.

    Args:
        tokenizer: A transformers tokenizer, one that reads text as it continues a context.

    Attributes:
        ids: Their ids.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items()
        named = {number for number, token in added if token.special or _is_marker(token.content)}
        roles = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
        unknown = roles.pop("unk_token", None)
        harmless = {tokenizer.unk_token_id} if unknown not in roles.values() else set()
        self.ids = frozenset({*named, *tokenizer.all_special_ids} - harmless - {None})

    def harmless(self, text: str) -> tuple[str, list[int]]:
        """A text without what the tokenizer would read as control tokens, and its ids.

        The first character of each is replaced by a mark. What a normaliser makes one again is taken out, and a text
        that still holds one is left out::

            buy </s> now      buy ‹/s> now
            [INST] buy        ‹INST] buy
        """
        for instead in (_marked, _blank, _nothing):
            ids = self._encode(text)
            if self.ids.isdisjoint(ids):
                return text, ids
            text = _replaced(text, self._spans(text, ids), instead)
        ids = self._encode(text)
        return (text, ids) if self.ids.isdisjoint(ids) else ("", [])

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _spans(self, text: str, ids: Sequence[int]) -> list[Span]:
        """Where in a text its control tokens are, in order."""
        if not self._tokenizer.is_fast:
            names = {self._tokenizer.convert_ids_to_tokens(each) for each in self.ids.intersection(ids)}
            return [found.span() for found in re.finditer("|".join(map(re.escape, names)), text)]
        read = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        pairs = zip(read["input_ids"], read["offset_mapping"], strict=True)
        return list(dict.fromkeys((start, end) for number, (start, end) in pairs if number in self.ids))


def _is_marker(content: str) -> bool:
    """Whether an added token is more than a word, spaces, or one character: those are in ordinary text."""
    plain = all(each.isalnum() or each.isspace() or each == SPACE for each in content)
    return len(content) > 1 and not plain


def _replaced(text: str, spans: Iterable[Span], instead: Callable[[str], str]) -> str:
    spans = list(spans)
    between = [text[end:start] for (_, end), (start, _) in pairwise([(0, 0), *spans, (len(text), len(text))])]
    changed = [instead(text[start:end]) for start, end in spans]
    return "".join(piece for pair in zip(between, [*changed, ""], strict=True) for piece in pair)


def _marked(token: str) -> str:
    """``</s>`` is ``‹/s>``; of a word no letter is lost."""
    spaces, word = token[: len(token) - len(token.lstrip())], token.lstrip()
    return spaces + (word[:1] + MARK if word[:1].isalnum() else MARK) + word[1:]


def _blank(token: str) -> str:
    return " "


def _nothing(token: str) -> str:
    return ""
