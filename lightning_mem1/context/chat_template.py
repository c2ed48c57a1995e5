"""How a prompt begins and ends: what a tokenizer puts before a text, what its chat template puts around a message."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from lightning_mem1.context.control_tokens import ControlTokens

PROBE = "Which river?"
STAND_IN, REPLY = "MESSAGE-OF-THE-USER", "REPLY-OF-THE-MODEL"
# <think>, [THINK], <|START_THINKING|>, <seed:think>: what opens a model's reasoning, not what ends it
_REASONS = r"[<\[\u25c1](?!\|?end)\|?[\w:.-]*(?:think|thought|reason)[\w:.-]*\|?[>\]\u25b7]"


class ChatTemplate:
    """One user message as a prompt.

    Args:
        tokenizer: A transformers tokenizer, with a chat template or without.
        tag: Name of the internal state, which a template may open as well.
        settings: What the template is given besides the message, such as ``{"enable_thinking": False}``.

    Attributes:
        opening: What the template begins each reply with, to have the model reason first (``<think>`` and a line
            break); empty for most. It is no part of the prompt: every turn begins with it.

    Raises:
        ValueError: a template that fails, or does not show the message; settings that it does not know.
    """

    def __init__(self, tokenizer: Any, tag: str, settings: Mapping[str, Any] | None = None) -> None:
        self._tokenizer, self._settings = tokenizer, dict(settings or {})
        self._text = template_text(tokenizer)
        self._opens = re.compile(rf"(?:<{re.escape(tag)}>|{_REASONS})\s*\Z", flags=re.IGNORECASE)
        self._check_settings()
        self.opening = ""
        if self._text:
            rendered = self._rendered(f"{PROBE} <{tag}>red</{tag}>")
            self.opening = rendered[self._end(rendered) :]

    def ids(self, message: str, tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Ids of the prompt with this message; without a template of the message alone, begun as texts are.

        Args:
            message: Of the user.
            tools: What the template describes, if it `shows_tools`.
        """
        if not self._text:
            return [*begins(self._tokenizer), *self._encode(message + "\n")]
        rendered = self._rendered(message, tools)
        return self._encode(rendered[: self._end(rendered)])

    @property
    def shows_tools(self) -> bool:
        """Whether the template describes tools in the way that its model was trained on."""
        return re.search(r"\btools\b", self._text) is not None

    @cached_property
    def reply_ends(self) -> tuple[str, str]:
        """What the template puts between a turn and the result of the tool that it called, and behind that result.

        The result of a user's message where it knows no tools; nothing without a template, or with one that shows only
        the last message.
        """
        for role in ("tool", "user"):
            said = (("user", PROBE), ("assistant", REPLY), (role, STAND_IN))
            for chat in (
                [{"role": role, "content": text} for role, text in said],
                [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said],
            ):
                try:
                    rendered = str(self._apply_all(chat))
                except Exception:  # no such role, or no such content
                    continue
                before, turn, behind = rendered[: self._end(rendered)].partition(REPLY)
                opening, shown, closing = behind.partition(STAND_IN)
                if turn and shown:
                    return opening, closing
        return "", ""

    def _end(self, rendered: str) -> int:
        """Where a rendered prompt ends, without what opens the reply."""
        found = self._opens.search(rendered)
        return found.start() if found else len(rendered)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _rendered(self, message: str, tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """The prompt as text; the first way to hand over the message by which it is shown whole."""
        problem = "a prompt without the message"
        for given, standing_in in self._ways(message):
            try:
                rendered = str(self._apply(given, tools))
            except Exception as error:  # a template may raise anything
                problem = " ".join(str(error).split())[:160]
                continue
            if standing_in and rendered.count(STAND_IN) == 1:
                rendered = rendered.replace(STAND_IN, message)
            if message.strip() in rendered:
                return rendered
        raise ValueError(
            f"cannot use the policy's chat template: expected one that shows a user's message, got {problem}; repair "
            "chat_template.jinja in its folder, or take it away"
        )

    def _ways(self, message: str) -> Iterator[tuple[Any, bool]]:
        """Contents: a text, a list of parts, and both with a word in place of a message that would be changed."""
        for text in (message, STAND_IN):
            yield text, text is STAND_IN
            yield [{"type": "text", "text": text}], text is STAND_IN

    def _apply(self, content: Any, tools: Sequence[Mapping[str, Any]] = ()) -> Any:
        return self._apply_all([{"role": "user", "content": content}], tools)

    def _apply_all(self, chat: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> Any:
        settings = {"add_generation_prompt": True, "tokenize": False, **self._settings}
        return self._tokenizer.apply_chat_template(chat, tools=list(tools) or None, **settings)

    def _check_settings(self) -> None:
        if unknown := [key for key in self._settings if not re.search(rf"\b{re.escape(key)}\b", self._text)]:
            known = "a chat template that reads it" if self._text else "a policy with a chat template"
            raise ValueError(
                f"unknown setting of the chat template '{unknown[0]}': expected {known}, got none; set "
                "model.rollout.chat_template_kwargs"
            )


def template_text(tokenizer: Any) -> str:
    """The chat template; of several the default one, and all of them where none is the default."""
    found = getattr(tokenizer, "chat_template", None) or ""
    if isinstance(found, Mapping):
        found = found.get("default") or "\n".join(map(str, found.values()))
    return str(found)


def turn_end(tokenizer: Any) -> int | None:
    """The control token by which a chat template ends a reply, whether more messages follow or not.

    ``<|im_start|>assistant REPLY<|im_end|>`` has ``<|im_end|>``, which the files of many base models name nowhere.

    Returns:
        Its id; None without a template, and where no control token follows, or another one at the end of a chat.
    """
    if not template_text(tokenizer):
        return None
    names = {tokenizer.convert_ids_to_tokens(each): each for each in ControlTokens(tokenizer).ids}
    found = {_after_reply(tokenizer, names, more) for more in (False, True)}
    return found.pop() if len(found) == 1 else None


def _after_reply(tokenizer: Any, names: Mapping[str, int], more: bool) -> int | None:
    """The control token behind a reply, by its name, where there is one; `more` messages follow or not."""
    for as_parts in (False, True):
        said = [("user", STAND_IN), ("assistant", REPLY), *([("user", STAND_IN)] if more else [])]
        chat = [
            {"role": role, "content": [{"type": "text", "text": text}] if as_parts else text} for role, text in said
        ]
        try:
            rendered = str(tokenizer.apply_chat_template(chat, tokenize=False))
        except Exception:  # a template may raise anything, and one that shows no reply says nothing about its end
            continue
        if rendered.count(REPLY) == 1:
            behind = rendered.partition(REPLY)[2].lstrip()
            name = max((each for each in names if behind.startswith(each)), key=len, default=None)
            return None if name is None else names[name]
    return None


def begins(tokenizer: Any) -> list[int]:
    """What a tokenizer puts before a text by itself: its BOS, where it has one and uses it."""
    text, whole = (list(tokenizer.encode(PROBE, add_special_tokens=each)) for each in (False, True))
    places = range(len(whole) - len(text) + 1)
    return next((whole[:start] for start in places if whole[start : start + len(text)] == text), [])
