"""Accepted answers as data sets write them: what is understood, and what is not and therefore no answer."""

import pytest

from lightning_mem1.environments.qa.answers import accepted

RIVER = ("Danube", "Donau")


@pytest.mark.parametrize(
    "value",
    [
        ["Danube", "Donau"],
        [["Danube", "Donau"]],
        ("Danube", "Donau", "Danube"),
        ["Danube", None, "Donau"],
        '["Danube", "Donau"]',  # PopQA
        "['Danube', 'Donau']",  # as Python prints it, in a CSV
        ['["Danube", "Donau"]'],
        {"text": ["Danube", "Donau"], "answer_start": [7, 9]},  # SQuAD
        [{"text": "Danube", "answer_start": 7}, {"text": "Donau", "answer_start": 9}],  # its own files
        {"value": "Danube", "aliases": ["Donau", "Danube"], "type": "WikipediaEntity"},  # TriviaQA
        {"Value": "Danube", "Aliases": ["Donau"], "NormalizedAliases": ["donau"]},  # its own files
        '{"value": "Danube", "aliases": ["Donau"]}',
        {"target": ["Danube", "Donau"]},  # Search-R1
        {"target": [["Danube", "Donau"]]},
        [b"Danube", b"Donau"],
    ],
)
def test_every_way_to_write_two_answers_is_understood(value):
    assert accepted(value) == RIVER


@pytest.mark.parametrize("value", [None, [], {}, "[]", [[]], [None], {"text": [], "answer_start": []}, {"value": None}])
def test_what_is_empty_has_no_answer(value):
    assert accepted(value) == (() if value != {} else None)


@pytest.mark.parametrize(
    "value",
    [
        True,
        5,
        0.5,
        [True],
        ["Danube", 5],
        [["Danube"], ["Rhine"]],  # the answers of two questions
        {"a": "b"},
        {"number": "", "spans": ["x"]},
        "[1, 2]",
        "['Danube' 'Donau']",  # an array of numpy as text
        "{'text': array(['Danube'], dtype=object)}",
        {"text": {"a": 1}},
    ],
)
def test_what_is_not_understood_is_no_answer_and_never_a_guess(value):
    assert accepted(value) is None


@pytest.mark.parametrize(
    "text", ["Danube", "[sic]", "a [b] c", "{x}", "true", "5", "[" * 5000, "[" * 5000 + "]" * 5000]
)
def test_a_text_is_an_answer_as_it_is(text):
    assert accepted(text) == (text,)
