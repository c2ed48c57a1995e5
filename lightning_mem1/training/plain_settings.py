"""Groups of settings as plain values, and back: what checkpoints hold, and what a module may be made from."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lightning_mem1.checks import check_choice, check_numbers

T = TypeVar("T")


def plain(value: Any) -> Any:
    """Dataclasses as dicts, so that a checkpoint loads with `weights_only`."""
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def from_plain(kind: type[T], given: T | Mapping[str, Any], key: str) -> T:
    """A group of settings from its dataclass, which is returned as it is, or from a dict.

    Args:
        kind: The dataclass. Groups inside of it may be dicts too; what a dict leaves out keeps its default.
        given: The dataclass or the dict.
        key: Where it is set, e.g. ``model.optim``, for the error.

    Raises:
        ValueError: one line on a key that the group does not have, a value that is none of its choices, or a number
            that cannot be.
    """
    group = given if isinstance(given, kind) else _made(kind, given, key)
    for name, hint in get_type_hints(kind).items():
        choices = [choice for literal in _members(hint, Literal) for choice in get_args(literal)]
        if choices and (value := getattr(group, name)) is not None:
            what = f"{key.rpartition('.')[2]} name" if name == "name" else name
            check_choice(what, value, choices, f"{key}.{name}")
    check_numbers(key, kind, vars(group))
    return group


def _made(kind: type[T], given: Any, key: str) -> T:
    if not isinstance(given, Mapping):
        raise ValueError(f"wrong value for '{key}': expected {kind.__name__} or a dict, got {given!r:.80}; set {key}")
    names = {each.name for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name in names}
    for name in given:
        if name not in hints:
            nearest = difflib.get_close_matches(str(name), hints, n=1)
            hint = f"; did you mean '{key}.{nearest[0]}'?" if nearest else ""
            raise ValueError(f"unknown key '{key}.{name}': expected one of {', '.join(hints)}{hint}")
    return kind(**{name: _value(hints[name], value, f"{key}.{name}") for name, value in given.items()})


def _value(hint: Any, value: Any, key: str) -> Any:
    for member in _members(hint):
        if dataclasses.is_dataclass(member) and isinstance(value, Mapping):
            return from_plain(member, value, key)  # type: ignore[arg-type]
        if get_origin(member) is tuple and isinstance(value, list):
            return tuple(value)
    return value


def _members(hint: Any, origin: Any = None) -> list[Any]:
    """The types that a union is of, or the type alone; only those of an `origin` where one is given."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return [member for member in members if origin in (None, get_origin(member))]
