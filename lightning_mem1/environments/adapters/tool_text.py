"""Tools as text: how they are offered in a prompt, and which call an agent's words mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_mem1.context.tags import read_action
from lightning_mem1.context.tool_calls import read_written

Tools = Sequence[Mapping[str, Any]]  # each with name, description and parameters (a JSON schema)


def offered(tools: Tools) -> str:
    """Tools as lines of a prompt; nothing without tools.

    ```
    Tools:
    add[{"a": ..., "b": ...}] Add two numbers.
    ```
    """
    lines = []
    for tool in tools:
        shown = ", ".join(f'"{name}": ...' for name in _parameters(tool))
        about = " ".join(str(tool.get("description") or "").split())
        lines.append(f"{tool['name']}[{{{shown}}}] {about}".rstrip())
    return "\n".join(["Tools:", *lines]) if lines else ""


def read(text: str, tools: Tools) -> tuple[str, list[tuple[str, str]]]:
    """What an action says, and the tools it calls, with arguments as JSON text.

    ```
    add[{"a": 1, "b": 2}]                                   add   {"a": 1, "b": 2}
    look[the shelf]            a tool of one parameter      look  {"at": "the shelf"}
    <tool_call>{...}</tool_call>, and the like: see `context.tool_calls`
    answer[12], 12                                          no tool: the text is 12
    ```

    Raises:
        ValueError: a tool is called with arguments that nobody can make out; the message is for the agent.
    """
    known = {str(tool["name"]): tool for tool in tools}
    name, argument = read_action(text.strip()) or ("", "")
    if name in known:
        return "", [(name, _arguments(name, argument, known[name]))]
    if name == "answer":
        return argument, []
    written = read_written(text, [{"function": dict(tool)} for tool in tools])
    if written.problem:
        raise ValueError(written.problem)
    return written.content, [(call.name, call.arguments) for call in written.tool_calls]


def _arguments(name: str, text: str, tool: Mapping[str, Any]) -> str:
    try:
        given = json.loads(text or "{}")
    except ValueError:
        given = text
    if isinstance(given, dict):
        return json.dumps(given)
    parameters = _parameters(tool)
    if len(parameters) != 1:
        shown = ", ".join(f'"{each}": ...' for each in parameters)
        raise ValueError(f"expected {name}[{{{shown}}}]")
    ((only, schema),) = parameters.items()
    return json.dumps({only: text if schema.get("type") == "string" else given})


def _parameters(tool: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = (tool.get("parameters") or {}).get("properties") or {}
    return {str(name): each if isinstance(each, Mapping) else {} for name, each in found.items()}
