"""Why a class that a setting names cannot be used: its module, its name, a mistake in its own file, or a method.

jsonargparse answers with all types that the setting could have had. Here the class is looked at again, and the first
thing that is wrong with it is named.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from lightning_mem1.cli.parser_messages import key_at
from lightning_mem1.io import own_code

OLD_CALLBACKS = tuple(f"lightning_mem1.callbacks.{name}." for name in ("memory_usage", "reward", "answers"))
MOVED = {  # class -> what a YAML names it now
    "lightning_mem1.qa_data.QAData": "QAData",
    "lightning_mem1.datamodule.WebShopData": "WebShopData",
    "lightning_mem1.datamodule.TaskDataModule": "TaskDataModule",
    "lightning_mem1.tasks.webshop.ShopTasks": "lightning_mem1.environments.webshop.tasks.ShopTasks",
    "lightning_mem1.tasks.qa.EncyclopediaTasks": "lightning_mem1.environments.qa.tasks.EncyclopediaTasks",
    "lightning_mem1.sharding.ShardedBase": "lightning_mem1.training.strategy.ShardedBase",
}
_GIVEN = re.compile(
    r"class_path '([^']+)'|key='[\w.]*class_path', val='([^']+)'|'class_path': '([^']+)'|Given value: (\w+\.[\w.]+)$",
    re.M,
)
_NOT_BASE = re.compile(r"Import path ([\w.]+) does not correspond to a subclass of (\w+)")
_NOT_PROTOCOL = re.compile(r"Import path ?([\w.]*) does not implement protocol (\w+)")
_LACKING = re.compile(r"class_path '([\w.]+)':\n\s+the following arguments are required: ([\w, ]+)")
_NO_CLASS = re.compile(r"Expected an instantiatable class, but [\w.]*?(\w+) is a protocol")
_NO_DOT = re.compile(r"Expected a dot import path string: (\S+)")


def explain_class(message: str, where: Callable[[str], str], known: Iterable[str]) -> str | None:
    """One line about a class that cannot be used.

    Args:
        message: What jsonargparse said.
        where: Says where a class is named: ``the command line``, or a config with its line.
        known: Names of the classes that need no module.

    Returns:
        The line; None when the message is about something else.
    """
    if found := _NO_DOT.search(message):
        name, own = found[1].strip("'"), list(known) if key_at(message, found.start()) == "data" else []
        return f"unknown class '{name}' in {where(name)}: expected {_names(own)}{_nearest(name, own)}"
    if found := _NO_CLASS.search(message):
        key = key_at(message, found.start())
        return (
            f"no class for '{key}' in {where(key)}: expected class_path with a {found[1]}, got init_args alone; set it"
        )
    given = [next(filter(None, groups)) for groups in _GIVEN.findall(message)]
    for path in given:
        if path in MOVED:
            return f"class '{path}' in {where(path)} has moved: expected '{MOVED[path]}'; set class_path to it"
        if path.startswith(OLD_CALLBACKS):
            return (
                f"class '{path}' in {where(path)} is now part of lightning_mem1.callbacks.MetricsCallback, which is a "
                "default callback; leave it out of trainer.callbacks"
            )
        if reason := import_problem(path):
            return f"cannot import class '{path}' in {where(path)}: {reason}"
    if found := _LACKING.search(message):
        return (
            f"class '{found[1]}' in {where(found[1])} lacks settings: expected a value of {found[2]}, got none; set "
            f"{found[2]} below its init_args"
        )
    if found := _NOT_PROTOCOL.search(message):
        path = found[1] or given[-1]
        return f"class '{path}' in {where(path)} is no {found[2]}: {_protocol_problem(path, found[2])}"
    if found := _NOT_BASE.search(message):
        return (
            f"class '{found[1]}' in {where(found[1])} is no {found[2]}: expected a class derived from {found[2]}; "
            "change its base, or set class_path to another one"
        )
    return None


def import_problem(path: str) -> str | None:
    """Why a dotted name cannot be imported and what to do, None when it can."""
    module_name, _, name = path.rpartition(".")
    if not module_name:
        return None
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            return f"no module '{error.name}'{_similar_module(error.name)}; correct class_path, or set PYTHONPATH"
        return _own_mistake(error)
    except SyntaxError as error:
        place = f"'{error.filename}', line {error.lineno}" if error.filename else f"the file of module '{module_name}'"
        return f"{type(error).__name__} in {place}: {error.msg}; correct that file"
    except own_code.RAISED as error:  # whatever a module does while it is imported
        return _own_mistake(error)
    return None if hasattr(module, name) else _no_name(module, name)


def _own_mistake(error: BaseException) -> str:
    """What a file raised while it was imported, and in which line."""
    found = own_code.place(error)
    where = f" in '{found[0]}', line {found[1]}" if found else ""
    return f"{type(error).__name__}{where}: {own_code.message(error)[:200]}; correct that file"


def _no_name(module: ModuleType, name: str) -> str:
    classes = [each for each, value in vars(module).items() if inspect.isclass(value)]
    place = f" ({module.__file__})" if module.__file__ else ""
    return f"module '{module.__name__}'{place} holds no '{name}'{_nearest(name, classes)}; correct class_path"


def _similar_module(name: str) -> str:
    """Modules of this folder are the likeliest ones that somebody misspells."""
    return _nearest(name, [path.stem for path in Path().glob("*.py")])


def _nearest(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{nearest[0]}'?" if nearest else ""


def _names(known: Iterable[str]) -> str:
    return ", ".join([*known, "or a dotted name such as mymodule.MyData"]).removeprefix("or ")


def _protocol_problem(path: str, protocol_name: str) -> str:
    """The first method that is missing, or that has other arguments or annotations."""
    from lightning_mem1 import types

    module, _, name = path.rpartition(".")
    kind, protocol = getattr(importlib.import_module(module), name), getattr(types, protocol_name, None)
    if not inspect.isclass(kind):
        return f"expected a class, got a {type(kind).__name__}; set class_path to one"
    members = inspect.getmembers(protocol, inspect.isfunction) if protocol else []
    methods = [(name, wanted) for name, wanted in members if not name.startswith("_")]
    for differs in (_arguments_differ, _results_differ):  # what is surely wrong before what only may be
        for method, wanted in methods:
            own = getattr(kind, method, None)
            reason = (
                "is missing" if own is None else differs(own, wanted) if inspect.isfunction(own) else "is no method"
            )
            if reason:
                return f"method '{method}' {reason}; expected {method}{_signature(wanted)}"
    return f"expected the methods of lightning_mem1.types.{protocol_name} with the same arguments and annotations"


def _arguments_differ(own: Any, wanted: Any) -> str | None:
    names = [list(inspect.signature(each).parameters) for each in (own, wanted)]
    if names[0][: len(names[1])] != names[1]:
        return f"takes ({', '.join(names[0])})"
    try:
        ours, theirs = get_type_hints(own), get_type_hints(wanted)
    except Exception as error:  # an annotation is code: it may name what does not exist
        return f"has an annotation that cannot be read ({' '.join(str(error).split())[:100]})"
    for name, kind in theirs.items():
        if name not in ours:
            return f"has no annotation for {_what(name)}"
        if name != "return" and ours[name] != kind:
            return f"annotates '{name}' as {_shown(ours[name])}"
    return None


def _results_differ(own: Any, wanted: Any) -> str | None:
    ours, theirs = get_type_hints(own)["return"], get_type_hints(wanted)["return"]
    return None if ours == theirs else f"annotates its result as {_shown(ours)}"


def _what(name: str) -> str:
    return "its result" if name == "return" else f"'{name}'"


def _shown(kind: Any) -> str:
    return kind.__name__ if inspect.isclass(kind) else str(kind)


def _signature(method: Any) -> str:
    """``(split: Literal['train', 'val', 'test']) -> int``, without self and with the types written out."""
    signature, hints = inspect.signature(method), get_type_hints(method)
    shown = [f"{each}: {_shown(hints[each])}" for each in signature.parameters if each in hints]
    return f"({', '.join(shown)}) -> {_shown(hints.get('return'))}".replace("typing.", "")
