"""Messages -> ids of a context: what this episode sampled is put in by its sampled ids, never tokenised again."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_mem1.context.chat_template import template_text
from lightning_mem1.context.continuation import continuing
from lightning_mem1.engine.serving.text import TextCodec
from lightning_mem1.rollout.gateway.messages import Message


@dataclass(frozen=True)
class Rendered:
    """A context.

    Attributes:
        ids: Its ids.
        num_unmatched: Messages of the assistant that are in it as their text reads.
    """

    ids: list[int]
    num_unmatched: int


class Renderer:
    """Writes contexts as a policy's chat template does.

    A tokenizer without a template gets the texts one after the other, with a line break behind the first, as this
    package's own prompts.

    Args:
        tokenizer: The policy's; copied.
        max_tokens: Longest context.
        end_ids: Ids that end a turn besides the tokenizer's own end of text.
    """

    def __init__(self, tokenizer: Any, max_tokens: int, end_ids: Iterable[int] = ()) -> None:
        self._tokenizer, self._template = copy.deepcopy(tokenizer), template_text(tokenizer)
        self._first, self._further = (TextCodec(each, max_tokens) for each in (tokenizer, continuing(tokenizer)))
        self.end_ids = {tokenizer.eos_token_id, *end_ids} - {None}
        self.special = {int(each) for each in tokenizer.all_special_ids}

    def encode(self, text: str, first: bool, begun: bool = True) -> list[int]:
        """The ids of a text; raises ValueError when it is too long.

        Args:
            text: Which one.
            first: Whether it begins the context, or continues it.
            begun: Whether it brings what the tokenizer begins texts with, its BOS for instance.
        """
        return (self._first if first else self._further).encode(text, begun or not first)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens included."""
        return self._first.decode(ids)

    def without_end(self, ids: list[int]) -> list[int]:
        """Sampled ids without the id that ended the turn, which is in no text."""
        return ids[:-1] if ids and ids[-1] in self.end_ids else ids

    def text(self, pieces: Sequence[str | list[int]]) -> list[int]:
        """The ids of a text in pieces, some of which are ids already; raises ValueError when it is too long."""
        ids: list[int] = []
        for piece in pieces:
            ids += self.encode(piece, not ids, begun=False) if isinstance(piece, str) else piece
        return ids

    def chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        sampled: Mapping[int, Sequence[int]],
        options: Mapping[str, Any],
    ) -> Rendered:
        """The context of a chat.

        Args:
            messages: What was sent.
            tools: The tools that are offered.
            sampled: Ids of messages that were sampled, by their place.
            options: For the template (``chat_template_kwargs``).

        Raises:
            ValueError: the template cannot write these messages, or they are too long.
        """
        secret = secrets.token_hex(8)  # nobody can write what stands for a sampled message
        marks = {place: f"[{secret}:{place}]" for place in sorted(sampled)}
        marked = [
            {"role": "assistant", "content": marks[place]} if place in marks else dict(message.raw)
            for place, message in enumerate(messages)
        ]
        ids: list[int] = []
        rest = self._text(marked, tools, options)
        for place, mark in marks.items():
            before, found, rest = rest.partition(mark)
            if not found:
                raise ValueError(f"the chat template leaves out messages[{place}], which the policy wrote")
            ids += self._behind(ids, before)
            ids += sampled[place]
        ids += self._behind(ids, rest)
        unmatched = sum(message.role == "assistant" for message in messages) - len(sampled)
        return Rendered(ids, unmatched)

    def _behind(self, ids: Sequence[int], text: str) -> list[int]:
        """Ids of a text behind others; an end of turn that was sampled already is not written a second time."""
        found = self.encode(text, not ids, begun=bool(self._template))
        again = ids and found and found[0] == ids[-1] and found[0] in self.special
        return found[1:] if again else found

    def _text(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> str:
        if not self._template:
            first, *others = [str(message["content"]) for message in messages]
            return "".join([first, "\n", *others])
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages),
                    tools=list(tools) or None,
                    add_generation_prompt=True,
                    tokenize=False,
                    **options,
                )
            )
        except Exception as error:  # jinja's, or whatever a template runs into
            raise ValueError(f"the policy's chat template cannot write these messages: {str(error)[:300]}") from error
