"""What a client asks for, read and checked: the part of OpenAI's protocol that a policy in training can answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_mem1.engine.protocol.client import is_ids
from lightning_mem1.engine.protocol.server import MAX_STOP_CHARS, MAX_STOPS, NEUTRAL
from lightning_mem1.rollout.gateway.messages import Message, read_messages, read_tools, shown

NEUTRAL_HERE = {key: NEUTRAL[key] for key in ("n", "best_of", "echo", "suffix", "logit_bias", "ignore_eos")}


@dataclass(frozen=True)
class Asked:
    """One call.

    Attributes:
        model: The name that the client gave, any.
        messages: Of a chat; empty for a plain completion.
        prompt: Of a plain completion, text or ids.
        tools: What may be called.
        options: For the chat template.
        max_tokens: The client's limit; None for none.
        stop: Strings that end the turn.
        stream: Whether the answer is to come as events.
        usage: Whether the last event counts tokens.
        keeps_stop: Whether the text keeps the string that stopped it.
        logprobs: Whether log-probabilities are returned.
        ids: Whether ids are.
    """

    model: str
    messages: Sequence[Message] = ()
    prompt: str | Sequence[int] = ""
    tools: Sequence[Mapping[str, Any]] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    usage: bool = False
    keeps_stop: bool = False
    logprobs: bool = False
    ids: bool = False

    @property
    def chat(self) -> bool:
        """Whether it is a chat."""
        return bool(self.messages)


def read_chat(body: Any) -> Asked:
    """A body of ``/v1/chat/completions``; raises ValueError with what is wrong with it.

    Tools are offered or, by ``tool_choice`` none, not; none is forced on a policy, which has to learn to call them.
    """
    common = _common(body, ("max_completion_tokens", "max_tokens"))
    choice, tools = body.get("tool_choice"), read_tools(body.get("tools"))
    kind = body.get("response_format")
    if kind is not None and (not isinstance(kind, dict) or kind.get("type") != "text"):
        raise ValueError(f"expected 'response_format' to be of type text, got {shown(kind)}: no format is forced")
    options = body.get("chat_template_kwargs") or {}
    if not isinstance(options, dict) or {"tokenize", "add_generation_prompt"} & options.keys():
        raise ValueError(f"expected 'chat_template_kwargs' to be an object of the template's own, got {shown(options)}")
    return Asked(
        messages=read_messages(body.get("messages")), tools=[] if choice == "none" else tools, options=options, **common
    )


def read_completion(body: Any, vocabulary: int) -> Asked:
    """A body of ``/v1/completions``; raises ValueError with what is wrong with it."""
    common = _common(body, ("max_tokens",))
    prompt = body.get("prompt")
    known = is_ids(prompt) and all(0 <= each < vocabulary for each in prompt)
    if not prompt or not (isinstance(prompt, str) or known):
        raise ValueError(f"expected 'prompt' to be text or ids below {vocabulary}, got {shown(prompt)}")
    return Asked(prompt=prompt, **common)


def _common(body: Any, limits: Sequence[str]) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise ValueError(f"expected an object, got {shown(body)}")
    for key, fine in NEUTRAL_HERE.items():
        if body.get(key) not in fine:
            raise ValueError(f"expected '{key}' to be {shown(fine[-1])} or left out, got {shown(body[key])}")
    named = next((key for key in limits if body.get(key) is not None), limits[0])
    limit = body.get(named)
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise ValueError(f"expected '{named}' to be a whole number from 1 up, got {shown(limit)}")
    options = body.get("stream_options")
    return {
        "model": str(body.get("model") or "policy")[:200],
        "max_tokens": limit,
        "stop": _stop(body.get("stop")),
        "stream": _flag(body, "stream"),
        "usage": bool(isinstance(options, dict) and options.get("include_usage")),
        "keeps_stop": _flag(body, "include_stop_str_in_output"),
        "logprobs": bool(body.get("logprobs")),
        "ids": _flag(body, "return_token_ids"),
    }


def _stop(value: Any) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value or []
    fine = isinstance(found, list) and all(isinstance(each, str) and 0 < len(each) <= MAX_STOP_CHARS for each in found)
    if not fine or len(found) > MAX_STOPS:
        raise ValueError(f"expected 'stop' to be text, or at most {MAX_STOPS} of them, got {shown(value)}")
    return tuple(found)


def _flag(body: Mapping[str, Any], key: str) -> bool:
    value = body.get(key)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"expected '{key}' to be true or false, got {shown(value)}")
    return bool(value)
