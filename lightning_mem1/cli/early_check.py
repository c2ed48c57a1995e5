"""Refuses wrong keys, types, choices and numbers before the libraries are imported that a command needs.

The parser here is the command's own over the same signatures, see `signatures`; so the line that is shown is the same.
What it cannot know without those libraries (the trainer's settings, classes of your own) is left to the command.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_mem1.checks import SEED, check_number, check_numbers
from lightning_mem1.cli import base_60, errors, setting_keys
from lightning_mem1.cli.errors import DATA_CLASSES
from lightning_mem1.cli.memory_words import with_mode
from lightning_mem1.cli.signatures import PLACE, stand_in, words
from lightning_mem1.context.settings import memory_mode
from lightning_mem1.training.credit.settings import check_algorithm
from lightning_mem1.training.layouts.spans import check_layout

CHECKED = ("WebShopData", "QAData", "ReadingData")  # the others name classes of their users
COMMON = ("seed_everything", "model", "data", "ckpt_path", "experiment", "tracking_uri")
LOADED = re.compile(rf"\b(?:{'|'.join(map(re.escape, DATA_CLASSES.values()))})\.({'|'.join(DATA_CLASSES)})\b")


def check(argv: Sequence[str], config: str | None, keys: Sequence[str]) -> None:
    """Check the settings of a command line.

    Args:
        argv: Its arguments, with ``--config PATH``.
        config: The config, which is there and is YAML.
        keys: The top-level keys of the command.

    Raises:
        ValueError: as the command would say it.
    """
    try:
        _check(argv, config, keys)
    except ValueError:
        raise
    except Exception:  # whatever cannot be read here is left to the command, which reads all of it
        return


def _check(argv: Sequence[str], config: str | None, keys: Sequence[str]) -> None:
    if "model" not in keys or sum(each.partition("=")[0] in ("--config", "-c") for each in argv) > 1:
        return
    named = set(_data_classes(argv, config)) or {"WebShopData"}
    with_data = named <= set(CHECKED)
    left = {"print_config", *(set(keys) - set(COMMON)), *(() if with_data else ["data"])}
    try:
        parser = _parser(keys, named if with_data else ())
    except LookupError:  # an installation without its sources
        return
    given = [LOADED.sub(r"\1", each) for each in _without(with_mode(argv, config), left)]
    text = LOADED.sub(r"\1", Path(config).read_text(encoding="utf-8")) if config else None
    given = [each for each in _without(given, {"config"}) if each not in ("-c", config)]
    try:
        found = parser.parse_args([*(["--config", text] if text else []), *given])
    except argparse.ArgumentError as error:
        message = str(error)
        if _is_left(message, left):
            return
        base_60.check({}, config, ())
        known = [*known_keys(keys)] if "accept" in message or "unrecognized" in message else []
        line = errors.explain_parsing(message, known, config, argv)
        raise ValueError(re.sub(rf"\b{PLACE.__name__}\.(\w+)", _loaded, line)) from error
    _check_values(parser.instantiate_classes(found))


def _loaded(named: re.Match[str]) -> str:
    """The class that a stand-in stands for, as `LOADED` has it."""
    return f"{DATA_CLASSES[named[1]]}.{named[1]}"


def known_keys(keys: Sequence[str]) -> list[str]:
    """All keys of a command with these top-level keys, dotted."""
    defaults = _parser(keys, ["WebShopData"]).get_defaults().as_dict()
    trainer = {f"trainer.{name}": None for name in _trainer_settings()}
    return setting_keys.known({**defaults, **trainer}, [stand_in(home, name) for name, home in DATA_CLASSES.items()])


def _parser(keys: Sequence[str], data: Iterable[str] = ()) -> Any:
    """The command's parser, with these data modules; without any, and for the trainer, it takes everything."""
    from jsonargparse import ActionConfigFile, ArgumentParser

    parser = ArgumentParser(parser_mode="omegaconf", exit_on_error=False, allow_abbrev=False, default_env=False)
    parser.add_argument("-c", "--config", action=ActionConfigFile)
    parser.add_argument("--seed_everything", type=bool | int, default=0)
    parser.add_argument("--trainer", type=Any, default=None)
    module = stand_in("lightning_mem1.training.module", "Mem1Module")
    parser.add_class_arguments(module, "model", fail_untyped=False, sub_configs=True)
    if data:
        for name in ("WebShopData", *data):  # known by their names from now on
            stand_in(DATA_CLASSES[name], name)
        parser.add_subclass_arguments(
            stand_in(DATA_CLASSES["TaskDataModule"], "TaskDataModule"), "data", fail_untyped=False, required=True
        )
        parser.set_defaults({"data": {"class_path": "WebShopData"}})
    else:
        parser.add_argument("--data", type=Any, default=None)
    for name in keys:
        if name not in ("seed_everything", "trainer", "model", "data"):
            parser.add_argument(f"--{name}", type=str | None if name in COMMON else Any, default=None)
    return parser


def _data_classes(argv: Sequence[str], config: str | None) -> list[Any]:
    """Names of the data modules that are given; those of this package without their modules."""
    content = yaml.safe_load(Path(config).read_text(encoding="utf-8")) if config else {}
    data = content.get("data")
    named = [data.get("class_path") if isinstance(data, dict) else data, content.get("data.class_path")]
    named += [value for name, value in errors.options(argv) if name in ("data", "data.class_path")]
    return [LOADED.sub(r"\1", str(each)) for each in named if each is not None]


def _without(argv: Sequence[str], names: set[str]) -> list[str]:
    """The arguments without some top-level keys, and without their values."""
    left, skips = [], False
    for argument in argv:
        option = argument.startswith("--")
        if option:
            name = argument[2:].partition("=")[0].partition(".")[0].rstrip("+")
            skips = name in names
        if not skips:
            left.append(argument)
        skips = skips and option and "=" not in argument
    return left


def _is_left(message: str, names: set[str]) -> bool:
    """Whether a message is about something that the command itself has to look at."""
    begins = r"(?:Parser key \"|--|Option '|Group ')"
    return any(re.search(rf"{begins}{re.escape(name)}\b", message) for name in names)


def _trainer_settings() -> list[str]:
    """Names of the arguments of Lightning's trainer, read from its file."""
    spec = importlib.util.find_spec("lightning")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for path in (Path(folder) / "pytorch" / "trainer" / "trainer.py" for folder in folders):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name == "Trainer":
                (init,) = (each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__")
                return [each.arg for each in (*init.args.args, *init.args.kwonlyargs) if each.arg != "self"]
    return []


def _check_values(found: Any) -> None:
    """Numbers, and words that are no types."""
    if not isinstance(found.seed_everything, bool):
        check_number("seed_everything", found.seed_everything, SEED)
    data, model = found.data, vars(found.model)
    if type(data).__name__ in CHECKED:
        check_numbers("data", type(data), vars(data), type(data).ranges)
    memory = model["memory"]
    mode = memory.get("mode") if isinstance(memory, dict) else memory
    if isinstance(mode, str) and "." not in mode:
        memory = memory_mode(memory)
    if "." not in model["algorithm"]:
        check_algorithm(model["algorithm"], words("lightning_mem1.training.credit.algorithms", "ALGORITHMS"))
    check_numbers("model", type(found.model), model, type(found.model).ranges)
    check_layout(model["layout"], memory)
