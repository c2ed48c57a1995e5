"""Tools as text: what is offered, and which call an agent's words mean."""

import json

import pytest

from lightning_mem1.environments.adapters import tool_text

ADD = {
    "name": "add",
    "description": "Add two\nnumbers.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
}
LOOK = {"name": "look", "description": "", "parameters": {"properties": {"at": {"type": "string"}}}}
TOOLS = [ADD, LOOK]


def test_tools_are_offered_with_their_arguments():
    assert tool_text.offered(TOOLS) == 'Tools:\nadd[{"a": ..., "b": ...}] Add two numbers.\nlook[{"at": ...}]'
    assert tool_text.offered([]) == ""


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        ('add[{"a": 1, "b": 2}]', "", [("add", {"a": 1, "b": 2})]),
        ("look[the shelf]", "", [("look", {"at": "the shelf"})]),
        ("look[7]", "", [("look", {"at": "7"})]),
        ("look[]", "", [("look", {})]),
        ('<tool_call>{"name": "look", "arguments": {"at": "x"}}</tool_call>', "", [("look", {"at": "x"})]),
        ("answer[12]", "12", []),
        ("search[12]", "search[12]", []),
        ("12", "12", []),
    ],
)
def test_what_an_action_means(text, said, calls):
    got, made = tool_text.read(text, TOOLS)
    assert (got, [(name, json.loads(arguments)) for name, arguments in made]) == (said, calls)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("add[3]", r'expected add\[\{"a": ..., "b": ...\}\]'),
        ("<tool_call>{</tool_call>", "a tool call that cannot be read"),
    ],
)
def test_a_call_that_nobody_can_make_out_is_refused(text, why):
    with pytest.raises(ValueError, match=why):
        tool_text.read(text, TOOLS)


def test_without_tools_everything_is_text():
    call = '<tool_call>{"name": "look", "arguments": {}}</tool_call>'
    assert tool_text.read(call, []) == (call, [])
