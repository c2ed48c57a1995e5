"""Tool calls in the formats of open models."""

import json

import pytest

from lightning_mem1.context.tool_calls import read_written

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "parameters": {"type": "object", "properties": {"at": {"type": "string"}, "times": {"type": "integer"}}},
        },
    }
]


def called(text):
    written = read_written(text, TOOLS)
    return written.content, [(call.name, json.loads(call.arguments)) for call in written.tool_calls], written.problem


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (
            'I look.\n<tool_call>\n{"name": "look", "arguments": {"at": "7", "times": 2}}\n</tool_call>',
            "I look.",
            [("look", {"at": "7", "times": 2})],
        ),
        (
            '<tool_call>{"name": "look", "arguments": {}}</tool_call>\n<tool_call>{"name": "go", "arguments": {"x": 1}}'
            "</tool_call>",
            "",
            [("look", {}), ("go", {"x": 1})],
        ),
        (
            "First.\n<tool_call>\n<function=look>\n<parameter=at>\n7\n</parameter>\n<parameter=times>\n2\n</parameter>\n"
            "</function>\n</tool_call>",
            "First.",
            [("look", {"at": "7", "times": 2})],
        ),
        ("<function=look>\n<parameter=at>\na\nb\n</parameter>\n</function>", "", [("look", {"at": "a\nb"})]),
        ('{"name": "look", "parameters": {"at": "x"}}', "", [("look", {"at": "x"})]),
        (
            'Well. <|python_tag|>{"name": "look", "parameters": {"at": "x"}}; {"name": "go", "parameters": {}}',
            "Well.",
            [("look", {"at": "x"}), ("go", {})],
        ),
        ("No tool at all: 1 < 2.", "No tool at all: 1 < 2.", []),
    ],
)
def test_tool_calls_are_read_in_the_formats_of_open_models(text, content, calls):
    assert called(text) == (content, calls, "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('<tool_call>{"name": "look"', "expected </tool_call> behind it, got the end of the turn"),
        ("<tool_call>look at x</tool_call>", "Expecting value"),
        ('<tool_call>["look"]</tool_call>', "expected an object with a name and arguments, got ['look']"),
        ('{"name": 7}', "expected an object with a name and parameters, got {'name': 7}"),
        ('{"name": "look", ', "Expecting property name"),
    ],
)
def test_a_call_that_cannot_be_read_stays_text_and_says_why(text, problem):
    content, calls, found = called(text)
    assert (content, calls) == (text, [])
    assert problem in found


def test_where_no_tools_were_offered_none_are_called():
    text = '<tool_call>{"name": "look", "arguments": {}}</tool_call>'
    assert read_written(text, []).content == text


def test_arguments_that_are_text_already_stay_as_they_are():
    (call,) = read_written('<tool_call>{"name": "look", "arguments": "{\\"at\\": 1}"}</tool_call>', TOOLS).tool_calls
    assert call.arguments == '{"at": 1}'
