"""Between text and ids: what the policy is given to read, and what it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lightning_mem1.context.formats import PromptFormat
from lightning_mem1.context.tags import Tags, escape_tags
from lightning_mem1.types import Task

KEPT_TAIL = 0.25  # when information is cut, this part of the budget keeps its end (the available actions are there)


@dataclass(frozen=True)
class ContextEncoder:
    """A policy's tokenizer with the format that it reads and writes, and the limit of what it is shown at once.

    Attributes:
        tokenizer: A transformers tokenizer, the policy's.
        format: How prompts and replies are written.
        max_information_tokens: Limit of one reply.
        style: Of the prompt, see `prompts.render_prompt`.
    """

    tokenizer: Any
    format: PromptFormat = field(default_factory=lambda: PromptFormat(Tags()))
    max_information_tokens: int = 1000
    style: str = "full"

    def with_actions(self, names: Sequence[str]) -> ContextEncoder:
        """The same for a memory mode with actions of its own, see `Tags.with_actions`."""
        return replace(self, format=replace(self.format, tags=self.format.tags.with_actions(names)))

    def encode(self, text: str) -> list[int]:
        """Text -> ids, without special tokens around them."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Ids -> text, tags and special tokens included."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))

    def prompt_ids(self, task: Task, observation: str, staged: bool = False, about: str = "") -> list[int]:
        """Ids of the prompt that every context of a task begins with.

        Args:
            task: What is asked.
            observation: What its environment shows first.
            staged: Whether calls of their own write the memory: a prompt that explains the format says so.
            about: What a memory mode says of itself in such a prompt, see `MemoryMode.about`.
        """
        message = self.format.prompt(task.prompt, observation, task.max_turns, self.style, staged, about)
        if not self.tokenizer.chat_template:
            return self.encode(message + "\n")
        chat = [{"role": "user", "content": message}]
        return self.encode(self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))

    def information_ids(self, information: str, turns_left: int, before: Sequence[int] = ()) -> list[int]:
        """Ids of a reply as later contexts hold it; one that is too long loses its middle, never its closing tag.

        Args:
            information: What the environment said; tags in it are made harmless.
            turns_left: How many turns the agent still has, for the hint.
            before: Ids that come first inside of it, as they are: a turn's number, turns that are quoted.
        """
        head, tail = map(self.encode, self.format.information_ends(turns_left))
        body = [*before, *self.encode(escape_tags(information, self.format.tags))]
        room = max(0, self.max_information_tokens - len(head) - len(tail))
        if len(body) > room:
            kept = int(room * KEPT_TAIL)
            body = body[: room - kept] + body[len(body) - kept :]
        return [*head, *body, *tail]

    def memory_opening(self) -> list[int]:
        """Ids that are put before a memory that is to be written."""
        return self.encode(self.format.tags.state_opening)

    def note_ids(self, note: str) -> list[int]:
        """Ids of a reply that holds nothing but a note; none for an empty one."""
        return self.encode(self.format.block(note, 0)) if note else []
