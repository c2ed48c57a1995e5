"""Tool calls in what a policy wrote, in the formats that open models are trained on.

| format | text |
| --- | --- |
| Hermes, Qwen | ``<tool_call>{"name": "look", "arguments": {"at": "x"}}</tool_call>`` |
| Qwen3-Coder | ``<tool_call><function=look><parameter=at>x</parameter></function></tool_call>`` |
| Llama | ``{"name": "look", "parameters": {"at": "x"}}``, also behind ``<|python_tag|>`` and separated by ``;`` |
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

OPENING, CLOSING = "<tool_call>", "</tool_call>"
PYTHON_TAG = "<|python_tag|>"
FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL)


@dataclass(frozen=True)
class ToolCall:
    """What the policy wants to have called.

    Attributes:
        name: Of the tool.
        arguments: As JSON text, the way OpenAI's protocol has them.
        id: What the reply names; not part of what was said.
    """

    name: str
    arguments: str
    id: str = field(default="", compare=False)

    @property
    def said(self) -> tuple[str, Any]:
        """Name and arguments, however the JSON was written."""
        try:
            return self.name, json.dumps(json.loads(self.arguments), sort_keys=True)
        except ValueError:
            return self.name, self.arguments


@dataclass(frozen=True)
class Written:
    """A turn in its parts.

    Attributes:
        content: The text around the tool calls.
        tool_calls: What is to be called.
        problem: Why a tool call could not be read; its text is then part of the content.
    """

    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    problem: str = ""


def read_written(text: str, tools: Sequence[Mapping[str, Any]]) -> Written:
    """Take the tool calls out of a turn; where no tools were offered there are none.

    >>> read_written('I look.<tool_call>{"name": "look", "arguments": {"at": "x"}}</tool_call>', [{}])
    Written(content='I look.', tool_calls=(ToolCall(name='look', arguments='{"at": "x"}', id=''),), problem='')
    """
    if not tools:
        return Written(text)
    try:
        if OPENING in text:
            return _tagged(text, tools)
        if PYTHON_TAG in text or text.lstrip().startswith("{"):
            return _llama(text)
        if found := FUNCTION.findall(text):
            return Written(
                text[: text.index("<function=")].rstrip(), tuple(_xml(name, body, tools) for name, body in found)
            )
    except (ValueError, RecursionError) as error:
        return Written(text, problem=f"a tool call that cannot be read: {str(error)[:200]}")
    return Written(text)


def _tagged(text: str, tools: Sequence[Mapping[str, Any]]) -> Written:
    before, *parts = text.split(OPENING)
    calls, rest = [], []
    for part in parts:
        body, closed, after = part.partition(CLOSING)
        if not closed:
            raise ValueError(f"expected {CLOSING} behind it, got the end of the turn")
        rest.append(after)
        found = FUNCTION.findall(body)
        calls += (
            [_xml(name, inner, tools) for name, inner in found] if found else [_call(json.loads(body), "arguments")]
        )
    return Written("".join([before, *rest]).strip(), tuple(calls))


def _llama(text: str) -> Written:
    before, _, behind = text.rpartition(PYTHON_TAG)
    rest, calls, decoder = behind.strip(), [], json.JSONDecoder()
    while rest:
        value, end = decoder.raw_decode(rest)
        calls.append(_call(value, "parameters"))
        rest = rest[end:].lstrip("; \n")
    return Written(before.strip(), tuple(calls))


def _call(value: Any, key: str) -> ToolCall:
    """A call written as JSON; some models write one key, some the other."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError(f"expected an object with a name and {key}, got {str(value)[:80]}")
    arguments = value.get(key, value.get("arguments", value.get("parameters", {})))
    return ToolCall(value["name"], arguments if isinstance(arguments, str) else json.dumps(arguments))


def _xml(name: str, body: str, tools: Sequence[Mapping[str, Any]]) -> ToolCall:
    """A call written as tags; what the tool's schema does not call a string is read as JSON."""
    types = _types(name.strip(), tools)
    found = {key.strip(): _value(text, types.get(key.strip(), "string")) for key, text in PARAMETER.findall(body)}
    return ToolCall(name.strip(), json.dumps(found))


def _value(text: str, kind: Any) -> Any:
    if kind == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _types(name: str, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The types of a tool's parameters, by name."""
    for tool in tools:
        function = tool.get("function") or {}
        if function.get("name") == name:
            parameters = (function.get("parameters") or {}).get("properties") or {}
            return {key: each.get("type", "string") for key, each in parameters.items() if isinstance(each, dict)}
    return {}
