"""Actions as tool calls, in the chat formats of open models; the internal state keeps its tags.

The environment gets ``name[argument]``, as it does from tags::

    <think>red</think><tool_call>{"name": "search", "arguments": {"query": "shoes"}}</tool_call>    search[shoes]
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lightning_mem1.context.tags import Tags
from lightning_mem1.context.tool_calls import CLOSING, OPENING, PYTHON_TAG, ToolCall, read_written
from lightning_mem1.context.tools import tool

# what ends a turn in the vocabularies that are read: <|im_end|>, <|eot_id|>, </s>, <end_of_turn>
_END = re.compile(r"\s*(?:<\|(?!python_tag)\w+\|>|</s>|<end_of_turn>)\s*\Z")


@dataclass(frozen=True)
class CallTags(Tags):
    """Names of the blocks where a tool call says what is done.

    With `actions` only those may be called, and each takes one argument that is not empty; without, any.
    """

    mark_ends: ClassVar[str] = ">="
    begins: ClassVar[tuple[str, ...]] = (OPENING,)

    @property
    def stop(self) -> tuple[str, ...]:
        """What ends a turn: the end of its call."""
        return (CLOSING,)

    @property
    def marks(self) -> tuple[str, ...]:
        """The tags of calls too."""
        return (self.internal_state, self.information, "tool_call", "tool_response", "function", "parameter")

    def action_of(self, text: str) -> tuple[str | None, str]:
        """The one call in a turn, behind the internal state where that is closed."""
        behind = text.partition(self.state_closing)[2] if self.state_closing in text else text
        written = read_written(_without_end(behind), [{}])
        if written.problem:
            return None, f"expected {self.shape}, got {written.problem}"
        if len(written.tool_calls) != 1:
            return None, f"expected exactly one {self.shape}, got {len(written.tool_calls)}"
        (call,) = written.tool_calls
        argument = _argument(call)
        if self.actions and call.name not in self.actions:
            return None, f"expected a call of {' or '.join(self.actions)}, got {call.name[:80]!r}"
        if self.actions and not argument:
            return None, f"expected '{tool(call.name).argument}' in the call of {call.name}, got nothing"
        return f"{call.name}[{argument}]", ""

    def is_one_action(self, text: str) -> bool:
        """Whether a text is a call and nothing else."""
        text = _without_end(text).strip()
        return text.startswith(self.begins) and not read_written(text, [{}]).content and self._reads(text)

    def _reads(self, text: str) -> bool:
        return self.action_of(text)[0] is not None


class HermesTags(CallTags):
    """Calls as JSON in a tag (Hermes, Qwen2.5, Qwen3)."""

    @property
    def shape(self) -> str:
        """A call."""
        return '<tool_call>{"name": ..., "arguments": {...}}</tool_call>'

    def written(self, name: str, argument: str = "...") -> str:
        """A call."""
        return f"{OPENING}\n{_json(name, argument, 'arguments')}\n{CLOSING}"


class QwenCoderTags(CallTags):
    """Calls as tags in a tag (Qwen3-Coder)."""

    @property
    def shape(self) -> str:
        """A call."""
        return "<tool_call><function=name><parameter=key>value</parameter></function></tool_call>"

    def written(self, name: str, argument: str = "...") -> str:
        """A call."""
        parameter = f"<parameter={tool(name).argument}>\n{argument.strip()}\n</parameter>"
        return f"{OPENING}\n<function={name}>\n{parameter}\n</function>\n{CLOSING}"


class LlamaTags(CallTags):
    """Calls as bare JSON (Llama 3); the turn ends as the model ends its messages."""

    begins: ClassVar[tuple[str, ...]] = ("{", PYTHON_TAG)

    @property
    def stop(self) -> tuple[str, ...]:
        """Nothing but the end of the message."""
        return ()

    @property
    def words(self) -> str:
        """Nothing: words before it make JSON text."""
        return r"\s*"

    @property
    def shape(self) -> str:
        """A call."""
        return '{"name": ..., "parameters": {...}}'

    def written(self, name: str, argument: str = "...") -> str:
        """A call."""
        return _json(name, argument, "parameters")


SYNTAXES: dict[str, type[CallTags]] = {"hermes": HermesTags, "qwen_coder": QwenCoderTags, "llama": LlamaTags}


def call_tags(syntax: str, tags: Tags, actions: Sequence[str] = ()) -> CallTags:
    """The same names of blocks with calls in a syntax, one of `SYNTAXES`."""
    return SYNTAXES[syntax](tags.internal_state, tags.action, tags.information, tuple(actions) or tags.actions)


def _without_end(text: str) -> str:
    return _END.sub("", text)


def _json(name: str, argument: str, key: str) -> str:
    return json.dumps({"name": name, key: {tool(name).argument: argument.strip()}}, ensure_ascii=False)


def _argument(call: ToolCall) -> str:
    """The argument of a call as text: the value where there is one, JSON where there are several, else nothing."""
    try:
        value: Any = json.loads(call.arguments)
    except ValueError:  # a text in place of an object
        value = call.arguments
    if isinstance(value, dict):
        value = next(iter(value.values())) if len(value) == 1 else value or ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.strip().encode("utf-8", "replace").decode("utf-8")  # JSON can spell half a character
