"""A model behind an OpenAI-compatible endpoint, asked for one text at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from lightning_mem1.checks import RETRIES, TIMEOUT_S, Range, Ranges, check_choice
from lightning_mem1.io.json_service import RetryPolicy, ask
from lightning_mem1.io.redaction import redacted, remember

PROTOCOLS = ("chat", "completions")
PATHS = {"chat": "/chat/completions", "completions": "/completions"}
MAX_BYTES = 4 << 20


@dataclass
class EndpointSettings:
    """A model behind an OpenAI-compatible endpoint.

    Args:
        url: Base address with the version, e.g. ``http://127.0.0.1:8000/v1``.
        model: The name that the endpoint knows it by.
        protocol: chat (messages) or completions (plain text, as `mem1 serve` speaks it).
        key_variable: Environment variable with the API key; none is sent when it is not set.
        timeout_s: Of one try.
        num_retries: Further tries after the first.
        pause_s: Before the first retry; doubled before each further one.
        extra: Further fields of each request, such as {chat_template_kwargs: {enable_thinking: false}}.
    """

    url: str = ""
    model: str = ""
    protocol: Literal["chat", "completions"] = "chat"
    key_variable: str = "OPENAI_API_KEY"
    timeout_s: float = 60.0
    num_retries: int = 3
    pause_s: float = 0.5
    extra: dict[str, Any] | None = None
    ranges: ClassVar[Ranges] = {"timeout_s": TIMEOUT_S, "num_retries": RETRIES, "pause_s": Range(0, 3600)}


@dataclass(frozen=True)
class Said:
    """What a model wrote.

    Attributes:
        text: Its words, without what ended them.
        finish_reason: ``stop``, ``length`` or what the endpoint says.
        stop: The stop string that ended it, where the endpoint names it.
    """

    text: str
    finish_reason: str = "stop"
    stop: str | None = None


class ChatClient:
    """Asks an endpoint; safe to call from many threads.

    Args:
        settings: Which one.
        key: Where it is set in a config, for messages.

    Raises:
        ValueError: no address of http or https, or no name of a model.
    """

    def __init__(self, settings: EndpointSettings, key: str) -> None:
        parts = urlsplit(settings.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError(
                f"no endpoint: expected an address like http://127.0.0.1:8000/v1 without a password, got "
                f"'{redacted(settings.url)[:100]}'; set {key}.url"
            )
        if not settings.model:
            raise ValueError(
                f"no model named: expected the name that the endpoint knows it by, got none; set {key}.model"
            )
        check_choice("protocol", settings.protocol, PROTOCOLS, f"{key}.protocol")
        self.settings = settings
        remember({"api_key": os.environ.get(settings.key_variable, "")})
        self.address = settings.url.rstrip("/") + PATHS[settings.protocol]

    def say(
        self,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int | None = None,
        read: Callable[[Said], Any] = lambda said: said,
    ) -> Any:
        """What the model answers.

        Args:
            messages: With role and content; in protocol completions their contents one after the other.
            max_tokens: Limit of the answer.
            temperature: Of its sampling.
            stop: Strings that end it.
            seed: Of its sampling, for endpoints that know one.
            read: Takes the answer apart; a ValueError of it means that the answer is no good, which is retried as well.

        Returns:
            A `Said`, or what `read` makes of it.

        Raises:
            ServiceError: no good reply after all tries.
        """
        question: dict[str, Any] = {"model": self.settings.model, "max_tokens": max_tokens, "temperature": temperature}
        if self.settings.protocol == "chat":
            question["messages"] = [dict(each) for each in messages]
        else:
            question["prompt"] = "".join(each["content"] for each in messages)
        question |= {"stop": list(stop)} if stop else {}
        question |= {} if seed is None else {"seed": seed}
        given = self.settings
        patience = RetryPolicy(given.timeout_s, given.num_retries, given.pause_s, MAX_BYTES)
        body = {**question, **(given.extra or {})}
        return ask(self.address, body, lambda reply: read(self._read(reply)), patience, self._headers())

    def _headers(self) -> dict[str, str]:
        """The key, read each time: it is in no setting, no file and no message."""
        key = os.environ.get(self.settings.key_variable, "").strip()
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _read(self, reply: Any) -> Said:
        choices = reply.get("choices") if isinstance(reply, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise ValueError("expected 'choices' with one choice, got none")
        choice = choices[0]
        chat = self.settings.protocol == "chat"
        message = choice.get("message")
        text = (message.get("content") if isinstance(message, dict) else None) if chat else choice.get("text")
        if not isinstance(text, str):
            raise ValueError(f"expected text in the choice, got {type(text).__name__}")
        stop = choice.get("stop_reason", choice.get("matched_stop"))
        return Said(text, str(choice.get("finish_reason")), stop if isinstance(stop, str) else None)
