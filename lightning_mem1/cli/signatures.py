"""The settings of a class as its file has them, read without importing what the file imports.

`Mem1Module` and the data modules are Lightning's classes: importing them takes seconds. Their settings are in the
signatures, so a stand-in with the same signature is made of the source: the one description of the settings stays
where they are read. A module that imports nothing heavy is imported as it is.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import inspect
import itertools
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

OWN = "lightning_mem1"
PLACE = ModuleType("_lightning_mem1_settings")  # the module of the classes that are read, for jsonargparse to find them
sys.modules[PLACE.__name__] = PLACE
HEAVY = ("torch", "lightning", "transformers", "peft", "numpy")


@lru_cache(maxsize=256)
def stand_in(module: str, name: str) -> Any:
    """What a module calls `name`, imported where that is light, else read from its file.

    A class keeps its ``__init__``, whose arguments an instance keeps as attributes, and its ``ranges``. ``**stream`` is
    replaced by the arguments of the base that it is handed to.

    Raises:
        LookupError: the file defines no such name in a way that can be read.
    """
    if module.partition(".")[0] != OWN or is_light(module):
        if module.partition(".")[0] in HEAVY:
            return type(name, (), {"__module__": module})  # a type that no setting can have
        return getattr(importlib.import_module(module), name)
    for node in _source(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _class(module, node)
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return _evaluated(module, node.value)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            return _evaluated(module, node.value)
        if isinstance(node, ast.ImportFrom) and any((each.asname or each.name) == name for each in node.names):
            found = next(each.name for each in node.names if (each.asname or each.name) == name)
            return stand_in(str(node.module), found)
        if isinstance(node, ast.Import) and any((each.asname or each.name) == name for each in node.names):
            return importlib.import_module(name)
    if hasattr(builtins, name):
        return getattr(builtins, name)
    raise LookupError(f"{module} defines no {name}")


def words(module: str, name: str) -> list[str]:
    """The keys of a dict of a module that is written with its keys."""
    for node in _source(module).body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.value, ast.Dict):
            continue
        if isinstance(node.target, ast.Name) and node.target.id == name:
            return [str(key.value) for key in node.value.keys if isinstance(key, ast.Constant)]
    raise LookupError(f"{module} defines no {name}")


@lru_cache(maxsize=512)
def is_light(module: str) -> bool:
    """Whether importing a module of this package imports none of `HEAVY`."""
    found: set[str] = set()
    todo = [module]
    while todo:
        each = todo.pop()
        if each.partition(".")[0] in HEAVY:
            return False
        if each.partition(".")[0] != OWN or each in found or _path(each) is None:
            continue
        found.add(each)
        parts = each.split(".")
        todo += [".".join(parts[:end]) for end in range(1, len(parts))]
        for node in _source(each).body:
            if isinstance(node, ast.Import):
                todo += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                todo += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return True


def _path(module: str) -> Path | None:
    place = Path(__file__).parents[2].joinpath(*module.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


@lru_cache(maxsize=512)
def _source(module: str) -> ast.Module:
    path = _path(module)
    if path is None:
        raise LookupError(f"no source of {module}")
    return ast.parse(path.read_text(encoding="utf-8"))


def _evaluated(module: str, *nodes: ast.expr | None) -> Any:
    """The value of expressions, with each name in them resolved in the module; the last one's."""
    value = None
    for node in filter(None, nodes):
        value = eval(compile(ast.Expression(node), module, "eval"), _names(module, node))  # noqa: S307  (our own file)
    return value


def _names(module: str, node: ast.AST) -> dict[str, Any]:
    used = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return {name: stand_in(module, name) for name in sorted(used)}


def _class(module: str, node: ast.ClassDef) -> type:
    bases = [_base(module, each) for each in node.bases]
    values: dict[str, Any] = {"__module__": PLACE.__name__, "__doc__": ast.get_docstring(node), "ranges": {}}
    for base in bases:
        values["ranges"] |= getattr(base, "ranges", {})
    init = None
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and ast.unparse(each.target) == "ranges":
            values["ranges"] |= _evaluated(module, each.value)
        elif isinstance(each, ast.FunctionDef) and each.name == "__init__":
            init = each
    if init is not None:
        values["__init__"] = _init(module, init, bases)
    kind = type(node.name, tuple(base for base in bases if base is not object), values)
    setattr(PLACE, node.name, kind)
    return kind


def _base(module: str, node: ast.expr) -> type:
    """A base of this package; `object` for any other, which has no settings of ours."""
    if not isinstance(node, ast.Name):
        return object
    try:
        found = _evaluated(module, node)
    except LookupError:
        return object
    return found if isinstance(found, type) and found.__module__ == PLACE.__name__ else object


def _init(module: str, node: ast.FunctionDef, bases: list[type]) -> Any:
    """An ``__init__`` with the signature of another, which keeps its arguments."""

    def __init__(self: Any, **given: Any) -> None:
        self.__dict__.update(given)

    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    required = len(node.args.posonlyargs) + len(node.args.args) - len(node.args.defaults)
    defaults = [*itertools.repeat(None, required), *node.args.defaults, *node.args.kw_defaults]
    parameters = []
    for argument, default in zip(arguments, defaults, strict=True):
        hint = _evaluated(module, argument.annotation) if argument.annotation else inspect.Parameter.empty
        value = inspect.Parameter.empty if default is None else _evaluated(module, default)
        parameters.append(
            inspect.Parameter(argument.arg, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value, annotation=hint)
        )
    if node.args.kwarg:  # handed to the base's, with some settled by the class itself
        taken = {each.name for each in parameters} | _settled(node)
        parameters += [
            each
            for base in bases
            for each in inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
            if each.name not in taken and each.kind == each.POSITIONAL_OR_KEYWORD
        ]
    __init__.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    __init__.__annotations__ = {each.name: each.annotation for each in parameters if each.name != "self"}
    return __init__


def _settled(node: ast.FunctionDef) -> set[str]:
    """Arguments that a class gives to its base's ``__init__`` itself."""
    calls = (each for each in ast.walk(node) if isinstance(each, ast.Call))
    own = (call for call in calls if ast.unparse(call.func) == "super().__init__")
    return {keyword.arg for call in own for keyword in call.keywords if keyword.arg}
