"""``--model.memory.window 3`` where the memory mode is named by a word: `memory: window` in the config."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any


def with_mode(argv: Sequence[str], config: str | None, key: str = "model.memory") -> list[str]:
    """The arguments with the mode spelled out where settings are given to a mode that is named by a word.

    Without it the settings would take the word's place: ``memory: window`` and ``--model.memory.window 3`` become
    ``{mode: window, window: 3}``. A mode with settings in the config is not touched.

    Args:
        argv: The arguments.
        config: The YAML file, checked before.
        key: The key of the memory mode.
    """
    option = f"--{key}"
    names = [argument.partition("=")[0] for argument in argv]
    given = [number for number, name in enumerate(names) if name.startswith(f"{option}.")]
    if not given or f"{option}.mode" in names:
        return list(argv)
    before, after = argv[: given[0]], argv[given[0] :]
    found = _given(before, option) or _configured(config, key)
    if not isinstance(found, str) or not found or found.startswith("{"):
        return list(argv)
    return [*before, f"{option}.mode={found}", *after]


def _given(argv: Sequence[str], option: str) -> str | None:
    """The last value of ``--model.memory VALUE`` or ``--model.memory=VALUE``."""
    values = [following for argument, following in pairwise(argv) if argument == option]
    values += [argument.partition("=")[2] for argument in argv if argument.startswith(f"{option}=")]
    return values[-1] if values else None


def _configured(config: str | None, key: str) -> Any:
    """What the config has there, the default word where it has nothing."""
    import yaml

    content = yaml.safe_load(Path(config).read_text(encoding="utf-8")) if config else None
    *sections, name = key.split(".")
    for section in sections:
        content = content.get(section) if isinstance(content, dict) else None
    return content.get(name, "mem1") if isinstance(content, dict) else "mem1"
