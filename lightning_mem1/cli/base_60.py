"""Refuses numbers that YAML reads in base 60: ``lr: 1:30`` is 90 there, and nobody means that."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

_BASE_60 = re.compile(r"[-+]?\d[\d_]*(:[0-5]?\d)+(\.[\d_]*)?")


def check(settings: Mapping[str, Any], config: str | None, options: Iterable[tuple[str, str]]) -> None:
    """Check the texts that settings were read from.

    Args:
        settings: What was read, by dotted names without ``init_args``. A setting that is a text may look like a time.
        config: The YAML file, None without one.
        options: Names and values of the command line.

    Raises:
        ValueError: a number was written with colons.
    """
    for name, value in options:
        for key, node in _found(value, name):
            _refuse(settings, key, node, "the command line")
    for key, node in _found(Path(config).read_text(encoding="utf-8"), "") if config else ():
        _refuse(settings, key, node, f"'{config}', line {node.start_mark.line + 1}")


def _refuse(settings: Mapping[str, Any], key: str, node: yaml.ScalarNode, where: str) -> None:
    quoted = node.style is not None
    if isinstance(settings.get(key), str) or (quoted and key not in settings):
        return
    raise ValueError(
        f"wrong value for '{key}' in {where}: expected a number in plain digits, got {node.value}, which YAML reads in "
        "base 60; write it without colons, or in quotes where a text is meant"
    )


def _found(text: str, key: str) -> Iterator[tuple[str, yaml.ScalarNode]]:
    """Key and node of each number in base 60 of a YAML text, those in quotes too."""
    if not re.search(r"\d:[0-5]?\d", text):  # nearly always
        return
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError:  # a text of the command line: whoever reads it as YAML says what is wrong
        return
    if root is not None:
        yield from _scalars(root, key)


def _scalars(node: yaml.Node, key: str) -> Iterator[tuple[str, yaml.ScalarNode]]:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            inner = f"{key}.{name.value}" if key else str(name.value)
            yield from _scalars(value, inner.replace(".init_args", ""))
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            yield from _scalars(each, key)
    elif isinstance(node, yaml.ScalarNode) and _BASE_60.fullmatch(node.value):
        yield key, node
