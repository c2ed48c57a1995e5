"""Between text and ids: what the policy is given to read, and what it wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from lightning_mem1.context.call_tags import CallTags
from lightning_mem1.context.chat_template import ChatTemplate
from lightning_mem1.context.continuation import continuing
from lightning_mem1.context.control_tokens import ControlTokens
from lightning_mem1.context.detokenizer import Detokenizer
from lightning_mem1.context.formats import PromptFormat
from lightning_mem1.context.tags import Tags, escape_tags
from lightning_mem1.context.tools import described
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
        template: What the tokenizer's chat template is given besides the message.
        begin_with_state: Whether each turn that writes an internal state is given its opening tag.

    Raises:
        ValueError: a chat template that cannot be used, see `ChatTemplate`, or actions that the tokenizer cannot write.
    """

    tokenizer: Any
    format: PromptFormat = field(default_factory=lambda: PromptFormat(Tags()))
    max_information_tokens: int = 1000
    style: str = "full"
    template: Mapping[str, Any] = field(default_factory=dict)
    begin_with_state: bool = False

    def __post_init__(self) -> None:
        _ = self._chat  # what cannot be used is named before anything is played
        for text in self.format.tags.stop:
            if text not in (written := self.decode(self.encode(text))):
                raise ValueError(
                    f"the policy's tokenizer cannot write {text}: expected it as it is, got {written!r}; set "
                    "model.rollout.tags or format to others"
                )

    @cached_property
    def _chat(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer, self.format.tags.internal_state, self.template)

    @cached_property
    def _control(self) -> ControlTokens:
        return ControlTokens(self._reads)

    @cached_property
    def _reads(self) -> Any:
        return continuing(self.tokenizer)

    @cached_property
    def _detokenizer(self) -> Detokenizer:
        return Detokenizer(self.tokenizer)

    def with_actions(self, names: Sequence[str]) -> ContextEncoder:
        """The same for a memory mode with actions of its own, see `Tags.with_actions`."""
        return replace(self, format=replace(self.format, tags=self.format.tags.with_actions(names)))

    def encode(self, text: str) -> list[int]:
        """Text -> ids as they continue a context: nothing is put around them, nor a space before them."""
        return list(self._reads.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Ids -> text, tags and special tokens included."""
        return self._detokenizer(ids)

    def harmless(self, text: str) -> tuple[str, list[int]]:
        """A stranger's text without tags and control tokens, and its ids.

        What counts is what the ids read as: a normaliser makes a tag of full-width brackets too.
        """
        tags = self.format.tags
        text, ids = self._control.harmless(escape_tags(text, tags))
        seen = self.decode(ids)
        return self._control.harmless(safe) if (safe := escape_tags(seen, tags)) != seen else (text, ids)

    def prompt_ids(self, task: Task, observation: str, staged: bool = False, about: str = "") -> list[int]:
        """Ids of the prompt that every context of a task begins with.

        Args:
            task: What is asked.
            observation: What its environment shows first.
            staged: Whether calls of their own write the memory: a prompt that explains the format says so.
            about: What a memory mode says of itself in such a prompt, see `MemoryMode.about`.
        """
        asked, shown = (self.harmless(text)[0] for text in (task.prompt, observation))
        message = self.format.prompt(asked, shown, task.max_turns, self.style, staged, about)
        tools = self.format.described_tools(shown, self.style)
        if tools and not self._chat.shows_tools:
            message = f"{described(tools, self.format.tags.shape)}\n\n{message}"
        return self._chat.ids(message, [tool.schema for tool in tools])

    def turn_opening(self, staged: bool = False) -> list[int]:
        """Ids that are put before each turn that acts: what the chat template begins a reply with, mostly none.

        With `begin_with_state` the opening tag of the internal state is behind it, unless it opens that itself.

        Args:
            staged: Whether calls of their own write the memory: an act then has none of its own, and opens none.
        """
        opening, tag = self._chat.opening, self.format.tags.state_opening
        if staged:
            return [] if tag in opening else self.encode(opening)
        return self.encode(opening if tag in opening or not self.begin_with_state else opening + tag)

    def memory_opening(self) -> list[int]:
        """Ids that are put before a memory that is to be written."""
        return self.encode(self.format.tags.state_opening)

    def information_ids(
        self, information: str, turns_left: int, before: Sequence[int] = (), turn: Sequence[int] = ()
    ) -> list[int]:
        """Ids of a reply as later contexts hold it; one that is too long loses its middle, never its closing tag.

        Args:
            information: What the environment said; tags and control tokens in it are made harmless.
            turns_left: How many turns the agent still has, for the hint.
            before: Ids that come first inside of it, as they are: a turn's number, turns that are quoted. Of these the
                end is lost first, down to where the reply itself has a quarter of the room.
            turn: The ids that it replies to, see `behind`.
        """
        head, tail = map(self.encode, self._information_ends(turns_left))
        head = self.behind(turn, head)
        room = max(0, self.max_information_tokens - len(head) - len(tail))
        body = self.harmless(information)[1]
        # what is quoted holds tags of its own: it loses its end, and is not among what is cut below
        own = min(len(body), max(room - len(before), int(room * KEPT_TAIL)))
        body = body if len(body) <= own else self._cut(body, own)
        return [*head, *before[: room - len(body)], *body, *tail]

    def note_ids(self, note: str) -> list[int]:
        """Ids of a reply that holds nothing but a note; none for an empty one."""
        head, tail = map(self.encode, self._information_ends(0))
        return [*head, *self.harmless(note)[1], *tail] if note else []

    def behind(self, turn: Sequence[int], reply: list[int]) -> list[int]:
        """A reply as it comes behind a turn: an end of turn that is sampled already is not there a second time."""
        again = reply and turn and reply[0] == turn[-1] and reply[0] in self._control.ids
        return reply[1:] if again else reply

    def _information_ends(self, turns_left: int) -> tuple[str, str]:
        """Opening and closing of a reply; to a tool call, with what the chat template puts around them."""
        opening, closing = self.format.information_ends(turns_left)
        if not isinstance(self.format.tags, CallTags):
            return opening, closing
        before, behind = self._chat.reply_ends
        tag = self.format.tags.information
        if f"<{tag}>" in before:  # the template has it
            opening, closing = opening.removeprefix(f"<{tag}>").lstrip(), closing.removesuffix(f"</{tag}>").rstrip()
        return before + opening, closing + behind

    def _cut(self, body: Sequence[int], room: int) -> list[int]:
        """The beginning and the end of a reply, without a tag where they meet."""
        kept = int(room * KEPT_TAIL)
        first, last = list(body[: room - kept]), list(body[len(body) - kept :])
        while last and escape_tags(seen := self.decode([*first, *last]), self.format.tags) != seen:
            del last[0]
        return [*first, *last]
