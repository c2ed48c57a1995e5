"""Reads the messages of jsonargparse: indented trees with a branch for each type that a value could have had."""

from __future__ import annotations

import re

_KEY = re.compile(r'^( *)(?:- )?Parser key "([\w.]+)":', re.M)
_SUBTYPES = re.compile(r"^( *)Subtypes: \[(.*)\]$", re.M)
_NO_GROUP = re.compile(r"^ *(?:- )?Parser key \"([\w.]+)\":\n *Unable to load config '(.*)'$", re.M)
_NESTED = re.compile(r"NestedArg\(key='([^']*)', val=(.*)\)")


def key_at(message: str, place: int) -> str:
    """The dotted key that a place of a message is about; empty for none.

    A class's own settings are named without the keys above them::

        Parser key "data":
            Parser key "web":        the key here is data.web
    """
    start = message.rfind("\n", 0, place) + 1
    indent = len(message[start:]) - len(message[start:].lstrip(" -"))
    above: list[tuple[int, str]] = []
    for found in _KEY.finditer(message, 0, max(start, place)):
        above = [each for each in above if each[0] < len(found[1])] + [(len(found[1]), found[2])]
    key = ""
    for depth, name in above:
        if depth < indent or depth == indent == 0:
            key = joined(key, name)
    return key


def joined(key: str, name: str) -> str:
    """A key inside another one (empty for none): some messages name it with the keys above it, some without."""
    return name if not key or name == key or name.startswith(f"{key}.") else f"{key}.{name}"


def wrong_value(message: str) -> tuple[str, str, str] | None:
    """Key, expected types and value of a message about a value that fits none of several types; None for others.

    ``num_rl_steps: xxx`` in class QAData -> ``("data.num_rl_steps", "int or null", "'xxx'")``.
    """
    if no_group := _NO_GROUP.search(message):
        key = joined(key_at(message, no_group.start()), no_group[1])
        return key, "a group of settings, {key: value}", repr(no_group[2])
    unions = list(_SUBTYPES.finditer(message))
    if not unions:
        return None
    deepest = max(unions, key=lambda union: len(union[1]))
    given = re.compile(rf"^{deepest[1]}Given value: (.*)$", re.M).search(message, deepest.end())
    if given is None:
        return None
    key, value = key_at(message, deepest.start()), given[1].strip()
    if nested := _NESTED.fullmatch(value):
        key, value = joined(key, nested[1]), nested[2].strip("'")
    expected = list(dict.fromkeys(type_name(each) for each in _parts(deepest[2])))
    return key, " or ".join(filter(None, [", ".join(expected[:-1]), expected[-1]])), repr(value)


def _parts(types: str) -> list[str]:
    """``"<class 'int'>, dict[int, int]"`` -> two types."""
    parts, depth = [""], 0
    for sign in types:
        depth += (sign in "[(<") - (sign in "])>")
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def type_name(text: str) -> str:
    """A type as a user knows it.

    ``<class 'float'>`` -> float; ``<class 'a.Data'>`` -> class_path with a Data; ``typing.Literal['a']`` -> one of 'a'.
    """
    if text == "<class 'NoneType'>":
        return "null"
    if found := re.fullmatch(r"<class '([\w.]+)'>", text):
        module, _, name = found[1].rpartition(".")
        return f"class_path with a {name}" if module else name
    if found := re.fullmatch(r"typing\.Literal\[(.+)\]", text):
        return f"one of {found[1]}"
    return text
