"""Actions as tools: what a model that calls tools is shown of them, and the name of their one argument."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tool:
    """An action ``name[argument]`` as a tool of one argument.

    Attributes:
        name: Of the action.
        argument: Of the argument, which is text.
        about: What the tool does.
        example: The argument in a turn that a prompt shows.
    """

    name: str
    argument: str = "argument"
    about: str = ""
    example: str = "the thing"

    @property
    def schema(self) -> dict[str, Any]:
        """As OpenAI's protocol and chat templates describe it."""
        argument = {"type": "object", "properties": {self.argument: {"type": "string"}}, "required": [self.argument]}
        about = self.about or f"Take the action {self.name}."
        return {"type": "function", "function": {"name": self.name, "description": about, "parameters": argument}}


_KNOWN = (
    Tool("search", "query", "Search for a few keywords."),
    Tool("query", "query", "Search for a few keywords."),
    Tool("answer", "answer", "Give the final answer. Several are separated by semicolons, in the order asked."),
    Tool("read", "part", "Read on: 'next' shows the next part.", "next"),
    Tool("click", "item", "Click what a page shows in brackets, by its text."),
    Tool("recall", "turns", "Fetch turns that are not in view any more, by their numbers.", "0"),
    Tool("delete", "turns", "Delete turns from the context, by their numbers.", "0"),
    Tool("branch", "aim", "Begin a branch with an aim of its own."),
    Tool("return", "result", "End the branch with its result."),
)
KNOWN = {tool.name: tool for tool in _KNOWN}


def tool(name: str) -> Tool:
    """The tool of an action.

    >>> tool("search").argument, tool("dig").argument
    ('query', 'argument')
    """
    return KNOWN.get(name) or Tool(name)


def named_tools(actions: Sequence[str], shown: str) -> list[Tool]:
    """The tools of some actions; without any, of those that an environment names in what it shows.

    >>> [each.name for each in named_tools((), "Actions: search[words], click[item], click[back]")]
    ['search', 'click']
    """
    names = actions or dict.fromkeys(re.findall(r"\b([a-z]\w*)\[", shown))
    return [tool(name) for name in names]


def described(tools: Sequence[Tool], shape: str) -> str:
    """Tools as text, for a chat template that does not show any by itself.

    >>> print(described([tool("search")], "<tool_call>...</tool_call>"))
    You can call these tools, one in every turn:
    - search(query): Search for a few keywords.
    A call is written as <tool_call>...</tool_call>
    """
    lines = [f"- {each.name}({each.argument}): {each.schema['function']['description']}" for each in tools]
    return "\n".join(["You can call these tools, one in every turn:", *lines, f"A call is written as {shape}"])
