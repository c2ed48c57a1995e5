"""Chat messages as a client sends them, checked and made plain."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_mem1.context.tool_calls import ToolCall

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
SHOWN = 80  # characters of what a client sent, in an error


@dataclass(frozen=True)
class Message:
    """One message of a chat.

    Attributes:
        role: One of `ROLES`.
        content: Its text; empty where there is none.
        tool_calls: Of an assistant.
        raw: What a chat template is given, tool calls with arguments as objects.
    """

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def said(self) -> tuple[Any, ...]:
        """What distinguishes two messages: spaces at the ends do not, nor do ids of tool calls."""
        return self.role, self.content.strip(), tuple(call.said for call in self.tool_calls)


def read_messages(value: Any) -> list[Message]:
    """The messages of a request; raises ValueError with what is wrong with them."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"expected 'messages' to be a list of at least one message, got {shown(value)}")
    return [_read_message(each, f"messages[{number}]") for number, each in enumerate(value)]


def _read_message(value: Any, where: str) -> Message:
    if not isinstance(value, dict) or value.get("role") not in ROLES:
        got = value.get("role") if isinstance(value, dict) else value
        raise ValueError(f"expected {where} to have a role, one of {', '.join(ROLES)}, got {shown(got)}")
    content = _text(value.get("content"), f"{where}.content")
    calls = value.get("tool_calls") or []
    if not isinstance(calls, list):
        raise ValueError(f"expected {where}.tool_calls to be a list, got {shown(calls)}")
    tool_calls = tuple(_read_call(call, f"{where}.tool_calls[{number}]") for number, call in enumerate(calls))
    role: str = {"developer": "system", "function": "tool"}.get(str(value["role"]), str(value["role"]))
    raw: dict[str, Any] = {"role": role, "content": content}
    raw |= {key: value[key] for key in ("name", "tool_call_id", "reasoning_content") if isinstance(value.get(key), str)}
    if tool_calls:
        raw["tool_calls"] = [_for_template(call) for call in tool_calls]
    return Message(role, content, tool_calls, raw)


def _text(value: Any, where: str) -> str:
    """Text, or the text of a list of parts."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [value]
    texts = [part.get("text", part.get("refusal")) if isinstance(part, dict) else part for part in parts]
    known = [text for text in texts if isinstance(text, str)]
    if len(known) != len(texts):
        raise ValueError(f"expected {where} to be text or a list of parts with text, got {shown(value)}")
    return "".join(known)


def _read_call(value: Any, where: str) -> ToolCall:
    function = value.get("function") if isinstance(value, dict) else None
    name, arguments = (function.get(key) if isinstance(function, dict) else None for key in ("name", "arguments"))
    if not isinstance(name, str) or not isinstance(arguments, str):
        raise ValueError(f"expected {where} to have a function with name and arguments as text, got {shown(value)}")
    return ToolCall(name, arguments, str(value.get("id") or ""))


def _for_template(call: ToolCall) -> dict[str, Any]:
    """Chat templates write arguments as JSON themselves."""
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        arguments = call.arguments
    return {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": arguments}}


def read_tools(value: Any) -> list[dict[str, Any]]:
    """The tools of a request; raises ValueError with what is wrong with them."""
    tools: Sequence[Any] = value or []
    if not isinstance(tools, list):
        raise ValueError(f"expected 'tools' to be a list, got {shown(tools)}")
    for number, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError(f"expected tools[{number}] to have a function with a name, got {shown(tool)}")
    return list(tools)


def shown(value: Any) -> str:
    """A value as it came, cut to size."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
