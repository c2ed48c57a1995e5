"""Spaces of Gymnasium as text: how an observation is written, how an action is read, and what an agent may write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_mem1.checks import MOST
from lightning_mem1.environments.adapters.extras import needed

MAX_NUMBERS = 64  # of an observation that is written as text
MAX_ACTION_NUMBERS = 16
MAX_NAMED = 100  # actions that are listed


def _spaces() -> Any:
    return needed("gymnasium.spaces", "gymnasium", "gym", "Gymnasium")


def check_observations(space: Any) -> None:
    """Raise ValueError for observations that are no short text."""
    spaces = _spaces()
    if isinstance(space, spaces.Text | spaces.Discrete):
        return
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for inner in space.values() if isinstance(space, spaces.Dict) else space:
            check_observations(inner)
        return
    numbers = isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary)
    if not numbers or np.prod(space.shape, dtype=int) > MAX_NUMBERS:
        raise ValueError(
            f"observations that are no text: expected texts, or at most {MAX_NUMBERS} numbers, got {_named(space)}; "
            "set data.source.render to a function (observation, info, env) -> str"
        )


def written(space: Any, value: Any) -> str:
    """An observation of a checked space as text.

    ``{"position": [0.5, 1.25], "keys": 2}`` -> ``position: 0.5 1.25`` and ``keys: 2`` in two lines.
    """
    spaces = _spaces()
    if isinstance(space, spaces.Text):
        return str(value)
    if isinstance(space, spaces.Dict):
        return "\n".join(f"{name}: {written(inner, value[name])}" for name, inner in space.items())
    if isinstance(space, spaces.Tuple):
        return "\n".join(written(inner, each) for inner, each in zip(space, value, strict=True))
    rows = np.atleast_2d(np.asarray(value))
    rows = rows.reshape(-1, rows.shape[-1])
    return "\n".join(" ".join(_number(each) for each in row) for row in rows)


def _number(value: Any) -> str:
    return np.format_float_positional(float(value), precision=4, trim="-")


def check_actions(space: Any, names: Sequence[str]) -> None:
    """Raise ValueError for actions that cannot be read from a text, and for names that do not belong to them."""
    spaces = _spaces()
    if names and not (isinstance(space, spaces.Discrete) and space.n == len(names)):
        expected = f"{space.n} names" if isinstance(space, spaces.Discrete) else "none"
        raise ValueError(
            f"names of actions do not fit {_named(space)}: expected {expected}, got {len(names)}; "
            "set data.source.actions"
        )
    numbers = isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary)
    small = numbers and np.prod(space.shape, dtype=int) <= MAX_ACTION_NUMBERS
    if not small and not isinstance(space, spaces.Text | spaces.Discrete):
        raise ValueError(
            f"actions that no text names: expected texts, names, or at most {MAX_ACTION_NUMBERS} numbers, got "
            f"{_named(space)}; set data.source.parse to a function (text, env) -> action"
        )


def offered(space: Any, names: Sequence[str]) -> str:
    """What an agent may write, in one line of its prompt; nothing where it is any text."""
    spaces = _spaces()
    if names and len(names) <= MAX_NAMED:
        return f"Actions: {', '.join(names)}"
    if isinstance(space, spaces.Discrete):
        return f"Actions: a whole number from {space.start} to {space.start + space.n - 1}"
    if isinstance(space, spaces.Text):
        return ""
    kind = "number" if isinstance(space, spaces.Box) else "whole number"
    count = np.prod(space.shape, dtype=int)
    return f"Actions: {count} {kind}s, separated by spaces" if count > 1 else f"Actions: a {kind}"


def read(space: Any, names: Sequence[str], text: str) -> Any:
    """The action that a text means.

    Raises:
        ValueError: it means none; the message is for the agent.
    """
    spaces = _spaces()
    words = text.strip()
    if isinstance(space, spaces.Text):
        return _within(space, text, f"expected a text of {space.min_length} to {space.max_length} characters")
    if names and (found := [n for n, name in enumerate(names) if name.casefold() == words.casefold()]):
        return int(space.start) + found[0]
    if names and len(names) <= MAX_NAMED:
        raise ValueError(f"expected one of {', '.join(names)}")
    expected = f"expected {offered(space, names).removeprefix('Actions: ')}"
    try:
        numbers = [float(each) for each in words.replace(",", " ").strip("[]() ").split()]
        value: Any = np.array(numbers).reshape(space.shape)
    except ValueError:
        raise ValueError(expected) from None
    whole = not isinstance(space, spaces.Box)
    if not np.all(np.abs(value) < MOST) or (whole and np.any(value != np.floor(value))):
        raise ValueError(expected)
    if isinstance(space, spaces.Discrete):
        return _within(space, int(value), expected)
    return _within(space, value.astype(space.dtype), f"{expected}, each in its range")


def _within(space: Any, value: Any, expected: str) -> Any:
    if not space.contains(value):
        raise ValueError(expected)
    return value


def _named(space: Any) -> str:
    """A space in a few words: ``Box(96, 96, 3)``."""
    return f"{type(space).__name__}{tuple(space.shape)}" if space.shape else type(space).__name__
