"""The dotted names of settings, without importing the classes that have them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from typing import Any


def known(defaults: Mapping[str, Any], data: Iterable[type]) -> list[str]:
    """All keys of the settings, dotted, without ``init_args``.

    Args:
        defaults: Those of the parser, nested.
        data: The data modules of the package: every key of each is known, whichever is chosen.
    """
    keys = list(flat(defaults))
    keys += [f"data.{name}" for kind in data for name in _arguments(kind)]
    return sorted({key.replace(".init_args", "") for key in keys} | {"model", "data", "trainer"})


def _arguments(kind: type) -> list[str]:
    """Names of a class's own arguments, those inside a group dotted."""
    names = []
    for parameter in inspect.signature(kind).parameters.values():
        if parameter.kind != parameter.VAR_KEYWORD:
            names.append(parameter.name)
        if dataclasses.is_dataclass(parameter.default):
            names += [f"{parameter.name}.{field.name}" for field in dataclasses.fields(parameter.default)]
    return names


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: ``{"model": {"lr": 1}}`` -> ``{"model.lr": 1}``."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def dotted(settings: dict[str, Any]) -> dict[str, Any]:
    """Every setting by its dotted name, without ``init_args``."""
    return {key.replace(".init_args", ""): value for key, value in flat(settings).items()}
