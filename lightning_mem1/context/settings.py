"""From a setting to a memory mode: a word, a dotted name, either with the mode's own settings, or the mode itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from lightning_mem1.checks import check_choice
from lightning_mem1.context.memory import MemoryMode, Runs
from lightning_mem1.context.modes import MODES
from lightning_mem1.io.dotted_names import imported
from lightning_mem1.io.own_code import told
from lightning_mem1.types import Turn

KEY = "model.memory"
Rule = Callable[[Sequence[Turn]], Runs]
# What a config may hold: {mode: window, window: 3}, window, my_file.Plan; in Python also the mode itself.
MemorySetting = dict[str, Any] | str | MemoryMode


def memory_mode(setting: Any, key: str = KEY) -> MemoryMode:
    """The memory mode that a setting means.

    ::

        "mem1"                                          a word of `modes.MODES`
        "my_file.Plan", "my_file.plan"                  a subclass of MemoryMode, or a function of the turns
        {"mode": "window", "window": 3}                 either of them, with the mode's own settings
        Window(3), Plan, plan                           in Python: the mode, its class, or the function

    Args:
        setting: One of these.
        key: The key that holds it, for messages.

    Raises:
        ValueError: one line: what was expected, what came, and what to set; a file of the user's that cannot be
            imported is reported as that, with file and line.
    """
    if isinstance(setting, MemoryMode):
        return setting
    given = dict(setting) if isinstance(setting, Mapping) else {"mode": setting}
    if "mode" not in given:
        raise ValueError(f"memory without a mode: expected a word or {{mode: ..., ...}}, got {given}; set {key}.mode")
    kind = _named(given.pop("mode"), key)
    if isinstance(kind, MemoryMode):
        return _settled(kind, given, key)
    if inspect.isclass(kind) and issubclass(kind, MemoryMode):
        return _made(kind, given, key)
    if callable(kind) and not inspect.isclass(kind):
        return _settled(FunctionMode(_checked(kind, key)), given, key)
    raise ValueError(
        f"not a memory mode: expected a subclass of lightning_mem1.context.memory.MemoryMode, or a function from turns "
        f"to runs of ids, got {kind!r:.120}; set {key}"
    )


@dataclass(frozen=True)
class FunctionMode(MemoryMode):
    """A memory mode that is one function from the turns so far to the runs of ids that stay."""

    rule: Rule

    def context(self, turns: Sequence[Turn]) -> Runs:
        """What the function says."""
        return self.rule(turns)

    @property
    def name(self) -> str:
        """The function's dotted name."""
        return f"{self.rule.__module__}.{_plain_name(self.rule)}"

    @property
    def settings(self) -> dict[str, Any]:
        """Its name; a function has no settings."""
        return {"mode": self.name}


def _plain_name(rule: Any) -> str:
    known = (getattr(rule, name, None) for name in ("__qualname__", "__name__"))
    return next(filter(None, known), type(rule).__qualname__)


def _named(mode: Any, key: str) -> Any:
    """What a word or a dotted name means; anything else as it is."""
    if not isinstance(mode, str):
        return mode
    if mode in MODES:
        return MODES[mode]
    if "." not in mode.strip("."):
        check_choice("memory mode", mode, MODES, f"{key}, also to a dotted name such as my_file.plan")
    return imported(mode, "memory mode", key)


def _made(kind: type[MemoryMode], given: Mapping[str, Any], key: str) -> MemoryMode:
    """An instance of a class; raises ValueError for settings that it does not have or cannot take."""
    known = {each.name: each.default for each in fields(kind) if each.init}
    name = kind.word or f"{kind.__module__}.{kind.__qualname__}"
    for setting, value in given.items():
        if setting not in known:
            raise ValueError(_unknown(name, setting, list(known), key))
        if not _fits(value, default := known[setting]):
            expected = type(default).__name__
            raise ValueError(f"wrong value for '{key}.{setting}': expected {expected}, got {value!r}; set it")
    try:
        return kind(**given)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"cannot make memory mode '{name}': {told(error)}; set {key}, or fix that class") from error


def _fits(value: Any, default: Any) -> bool:
    """Whether a value is of its default's type, where there is a default; an int passes for a float."""
    if default is MISSING or default is None:
        return True
    kind = (int, float) if isinstance(default, float) else type(default)
    return isinstance(value, kind) and isinstance(value, bool) == isinstance(default, bool)


def _settled(mode: MemoryMode, given: Mapping[str, Any], key: str) -> MemoryMode:
    """A mode that takes no further settings."""
    if given:
        raise ValueError(_unknown(mode.name, next(iter(given)), [], key))
    return mode


def _unknown(name: str, setting: str, known: Sequence[str], key: str) -> str:
    has = ", ".join(known) or "no settings"
    return f"memory mode '{name}' has no setting '{setting}': expected {has}; leave {key}.{setting} out"


def _checked(rule: Rule, key: str) -> Rule:
    """A function of one argument."""
    try:
        inspect.signature(rule).bind([])
    except TypeError as error:
        raise ValueError(
            f"memory mode '{_plain_name(rule)}' cannot be called: expected a function of one argument, the turns so "
            f"far, got {_plain_name(rule)}{inspect.signature(rule)}; set {key}"
        ) from error
    return rule
