"""Accepted answers as data sets write them.

```
"Danube"                                                a text
["Danube", "Donau"]                                     a list of texts, also inside a text (PopQA, CSV)
{"text": ["the Danube"], "answer_start": [7]}           SQuAD
[{"text": "the Danube", "answer_start": 7}]             SQuAD's own files
{"value": "Danube", "aliases": ["Donau"]}               TriviaQA
{"target": ["Danube"]}                                  Search-R1 and MEM1
```
Anything else is not understood, and nothing is guessed: ``true``, ``5``, a dictionary with other names.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Mapping
from typing import Any

_HOLDERS = ("target", "text", "value", "answer", "ground_truth")  # what holds the answers: the first that is there
MAX_PRINTED = 20_000  # characters
_ALIASES = ("aliases", "answer_aliases")


def accepted(value: Any) -> tuple[str, ...] | None:
    """The accepted answers in a value, the best first; none in a value that is empty.

    Returns:
        None when the value is not understood.

    >>> accepted('["Danube", "Donau"]'), accepted({"value": "Danube", "aliases": ["Donau"]}), accepted(True)
    (('Danube', 'Donau'), ('Danube', 'Donau'), None)
    """
    value = unwrapped(value)
    if isinstance(value, str):
        return None if _looks_packed(value) else (value,)
    if isinstance(value, Mapping):
        return _of_mapping(value)
    if isinstance(value, list | tuple):
        return _of_list(value)
    return () if value is None else None


def unwrapped(value: Any) -> Any:
    """A value that was written as text (JSON, or a list as Python prints it) taken out; any other as it is."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str) or not _bracketed(text := value.strip()):
        return value
    for read in (json.loads, _printed):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list | dict):
            return found
    return value


def _printed(text: str) -> Any:
    """A list or a dictionary as Python prints it; what it would print otherwise, like ``['a' 'b']``, is none."""
    if len(text) > MAX_PRINTED:
        return None
    with warnings.catch_warnings():  # about escape sequences in it
        warnings.simplefilter("ignore")
        found = ast.literal_eval(text)
    return found if repr(found) == text else None


def _bracketed(text: str) -> bool:
    return (text[:1], text[-1:]) in (("[", "]"), ("{", "}"))


def _looks_packed(text: str) -> bool:
    """Whether a text is a list or a dictionary that could not be read, ``['a' 'b']``; ``[sic]`` is a text."""
    return _bracketed(text.strip()) and ('"' in text or "'" in text)


def _of_mapping(value: Mapping[Any, Any]) -> tuple[str, ...] | None:
    named = {str(name).lower(): each for name, each in value.items()}
    holder = next((name for name in _HOLDERS if name in named), None)
    if holder is None:
        return None
    parts = [accepted(named[holder]), *(accepted(named[name]) for name in _ALIASES if name in named)]
    return joined(parts)


def _of_list(values: list[Any] | tuple[Any, ...]) -> tuple[str, ...] | None:
    if len(values) == 1:  # [["Danube", "Donau"]]: the answers of the only question
        return accepted(values[0])
    if any(isinstance(each, list | tuple) for each in values):
        return None
    return joined([accepted(each) for each in values])


def joined(parts: list[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """Answers from several places, each once; None when one of the places is not understood."""
    known = [part for part in parts if part is not None]
    return tuple(dict.fromkeys(each for part in known for each in part)) if len(known) == len(parts) else None
