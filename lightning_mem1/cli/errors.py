"""What a command line says when something is wrong: one line on stderr, never a traceback.

Messages are made where the mistake is noticed; this only shortens the ones of other libraries to *expected, got, where,
what to do*. Set ``LIGHTNING_MEM1_DEBUG=1`` or give ``--debug`` to see the traceback.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_mem1 import checks
from lightning_mem1.cli import huge_numbers
from lightning_mem1.cli.class_errors import explain_class
from lightning_mem1.cli.foreign_keys import foreign_key
from lightning_mem1.cli.parser_messages import joined, key_at, type_name, wrong_value
from lightning_mem1.io import own_code
from lightning_mem1.io.disk_room import ADVICE, is_full
from lightning_mem1.io.disk_room import reason as no_room
from lightning_mem1.io.redaction import causes, redacted, remember, remember_arguments, root
from lightning_mem1.io.terminal import printable

DEBUG = "LIGHTNING_MEM1_DEBUG"
MAX_CONFIG_VALUES = 100_000
DATA_CLASSES: Mapping[str, str] = {  # data module: where it is defined
    "QAData": "lightning_mem1.data.qa",
    "ReadingData": "lightning_mem1.data.reading",
    "WebShopData": "lightning_mem1.data.webshop",
    "AgentData": "lightning_mem1.data.agents",
    "TaskDataModule": "lightning_mem1.data.task_data",
}
INTERRUPTED = 130  # what shells use for Ctrl-C
MOVED: Mapping[str, str] = {  # keys of earlier versions, and their names now
    **checks.MOVED,
    "data.split": "data.split_rule",
    "data.num_passages": "data.encyclopedia.num_passages",
    "data.world_seed": "data.encyclopedia.seed",
    "warmstart.rollout.wire": "warmstart.rollout.format",
}


def run(command: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> int:
    """Run a command line and turn whatever it raises into one line and an exit code other than zero.

    Args:
        command: Takes the arguments (without ``--debug``), returns the exit code.
        argv: The arguments; None for those of this process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or bool(os.environ.get(DEBUG))
    remember_arguments(arguments)
    try:
        check_printable(arguments)
        return command([a for a in arguments if a != "--debug"])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except own_code.RAISED as error:
        if debug or (isinstance(error, SystemExit) and not own_code.raised_by_user(error)):
            raise
        if isinstance(error, OverflowError):
            error = huge_numbers.explained(_config_among(arguments), options(arguments)) or error
        print(f"error: {printable(redacted(one_line(error)))}", file=sys.stderr)
        return 1


def _config_among(arguments: Sequence[str]) -> str | None:
    """The YAML file that a command was given, None without one."""
    return next((argument for argument in arguments if Path(argument).is_file()), None)


def check_printable(names: Iterable[str]) -> None:
    """Refuse names that would act on the terminal in which they are shown.

    Raises:
        ValueError: one holds a control character.
    """
    for name in names:
        if any(map(_controls, name.replace("\n", "").replace("\t", ""))):
            shown = printable(name)[:200]
            raise ValueError(f"name with control characters: expected printable ones, got '{shown}'; rename it")


def _controls(character: str) -> bool:
    """Control characters, and those that turn the direction of what follows."""
    turns = "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"
    return turns or unicodedata.category(character) == "Cc"


def one_line(error: BaseException) -> str:
    """The message of an error in one line.

    Errors that are nobody's mistake say their kind and how to see more; those of the user's own files, where they are.
    """
    message = own_code.message(error)
    if message.startswith("Does not validate against") or _is_wrapped(error):  # jsonargparse around the reason
        error = _reason(error)
        message = own_code.message(error)
    if isinstance(error, SystemExit):
        return f"a file ended the program instead of being used: {own_code.told(error)}; take sys.exit out of it"
    if own_code.raised_by_user(error):
        return f"{own_code.told(error)}; correct that file"
    if is_full(error):
        where = getattr(error, "filename", None) or os.getcwd()
        return f"cannot write in '{where}': expected room on the disk, got '{no_room(error)}'; {ADVICE}"
    if isinstance(error, ValueError | OSError) and message:
        return message
    return f"{type(error).__name__}: {message or 'no message'} (--debug shows where)"


def _reason(error: BaseException) -> BaseException:
    """The line of this package that others wrapped, whatever it was raised for; else what was raised first."""
    chain = [*causes(error)]
    ours = (each for each in chain if isinstance(each, ValueError | OSError) and own_code.raised_here(each))
    return next(ours, chain[-1])


def _is_wrapped(error: BaseException) -> bool:
    """Whether jsonargparse says in words of its own that somebody's class could not be made."""
    frames = traceback.extract_tb(error.__traceback__)
    return (
        bool(frames) and f"{os.sep}jsonargparse{os.sep}" in frames[-1].filename and own_code.raised_by_user(root(error))
    )


def check_config(path: str, experiments: Sequence[str] = (), keys: Sequence[str] = ()) -> None:
    """Check that a config file is there, is YAML and has no unknown key at its top level.

    Args:
        path: The file.
        experiments: Names that may be meant when there is no such file.
        keys: The top-level keys that exist; none given: any.

    Raises:
        FileNotFoundError, ValueError: with the line and column of the mistake.
    """
    if not Path(path).is_file():
        hint = _nearest_config(path, experiments)
        raise FileNotFoundError(
            f"no such config: expected a YAML file or the name of an experiment, got '{path}'; {hint}"
        )
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"config is not YAML: {error.problem} in '{path}'{where}; repair the file") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that is none
        raise ValueError(f"config is not YAML: '{path}' is no readable text file; repair the file") from error
    except RecursionError as error:
        raise ValueError(f"config is nested too deeply: expected a few levels, got hundreds in '{path}'") from error
    remember(content)
    if not isinstance(content, dict):
        raise ValueError(
            f"config must hold keys like model, data and trainer, got a {type(content).__name__} in '{path}'"
        )
    if _size(content, {}) > MAX_CONFIG_VALUES:
        raise ValueError(
            f"config is too large: expected at most {MAX_CONFIG_VALUES:,} values once its aliases are written out, got "
            f"more in '{path}'"
        )
    _check_keys([str(key) for key in content], keys, path)


def _check_keys(found: Sequence[str], keys: Sequence[str], path: str) -> None:
    unknown = [key for key in found if key.partition(".")[0] not in keys] if keys else []
    if unknown:
        nearest = foreign_key(unknown[0], keys) or did_you_mean(unknown[0], keys)
        nearest = nearest or f"; expected some of {', '.join(keys)}"
        raise ValueError(f"unknown key '{unknown[0]}' in {_where(unknown[0], path, ())}{nearest}")


def _nearest_config(path: str, experiments: Sequence[str]) -> str:
    """What to do when there is no such file: the nearest one in its folder, else the nearest experiment."""
    folder = Path(path).parent
    files = sorted(str(p) for p in folder.glob("*.yaml")) if folder.is_dir() else []
    name = path.removeprefix("experiments/").removesuffix(".yaml")
    # all files end alike, and so do not take part in the comparison of dotted keys
    nearest = difflib.get_close_matches(path, files, n=1) or difflib.get_close_matches(name, experiments, n=1)
    return f"did you mean '{nearest[0]}'?" if nearest else "mem1 experiments lists those of the package"


def _size(content: Any, known: dict[int, float]) -> float:
    """Values in nested dicts and lists, an alias counted as often as it stands there; inf when one holds itself."""
    if not isinstance(content, dict | list):
        return 1
    if id(content) not in known:
        known[id(content)] = math.inf  # until it is known: only what holds itself asks before
        inner = content.values() if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(_size(value, known) for value in inner)
    return known[id(content)]


def explain_parsing(message: str, keys: Iterable[str], config: str | None, argv: Sequence[str] = ()) -> str:
    """Shorten a message of jsonargparse.

    Args:
        message: Its text, often of many lines.
        keys: All keys that exist, dotted, without ``init_args``.
        config: The config file, to say where the mistake is.
        argv: The command line, for the same purpose.
    """

    def where(key: str) -> str:
        return _where(key, config, argv)

    if key := _unknown_key(message):
        if key in MOVED:
            return _moved(key, config, argv)
        keys = list(keys)
        nearest = foreign_key(key, keys) or did_you_mean(key, keys)
        return f"unknown key '{key}' in {where(key)}{nearest or '; --help lists the keys'}"
    if found := re.search(r"argument --([\w.]+): expected (one|at least one) argument", message):
        return f"no value for '{found[1]}' in the command line: expected one, got none; write --{found[1]}=VALUE"
    values = list(re.finditer(r'Parser key "([\w.]+)":\s*\n\s*Expected an? (.+?)\. Got value: (.*)', message))
    if values:
        name, expected, got = values[-1].groups()
        key = joined(key_at(message, values[-1].start()), name)
        shown = "null" if got.strip() == "None" else repr(got.strip())
        return f"wrong value for '{key}' in {where(key)}: expected {type_name(expected)}, got {shown}"
    if line := explain_class(message, where, DATA_CLASSES):
        return line
    if value := wrong_value(message):
        return f"wrong value for '{value[0]}' in {where(value[0])}: expected {value[1]}, got {value[2]}"
    if found := re.search(r"Problem with given class_path '([^']+)':\s*\n\s*(.+)", message):
        return f"cannot use class '{found[1]}' in {where(found[1])}: {found[2].strip()}; repair class_path"
    union = re.search(r'Parser key "([\w.]+)":\s*\n\s*Does not validate .*\n\s*Subtypes: \[(.+)\]\n', message)
    if union and (given := re.findall(r"Given value: (.*)", message)):
        types = [type_name(each).partition("[")[0] for each in re.split(r", (?![^\[]*\])", union[2])]
        return f"wrong value for '{union[1]}' in {where(union[1])}: expected {' or '.join(types)}, got {given[-1]}"
    return f"cannot read the settings in {where('')}: {' '.join(message.split())[:300]}"


def _moved(key: str, config: str | None, argv: Sequence[str]) -> str:
    """The present names of all keys of earlier versions that the config or the command line has."""
    found = [name for name, _ in options(argv) if name in MOVED]
    found += [name for name in _keys_of(config) if name in MOVED]
    named = ", ".join(f"{name} is now {MOVED[name]}" for name in dict.fromkeys([key, *found]))
    places = " and ".join(dict.fromkeys(_where(name, config, argv) for name in dict.fromkeys([key, *found])))
    return f"{named}: rename {'it' if len({key, *found}) == 1 else 'them'} in {places}"


def _keys_of(config: str | None) -> list[str]:
    """The dotted keys of a config, without ``init_args``."""
    import yaml

    if config is None or not Path(config).is_file():
        return []
    found, places = [], [("", yaml.safe_load(Path(config).read_text(encoding="utf-8")))]
    while places:
        prefix, content = places.pop()
        for name, value in content.items() if isinstance(content, dict) else ():
            key = f"{prefix}{name}".replace(".init_args", "")
            found.append(key)
            places.append((f"{key}.", value))
    return found


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' with the nearest of the known names, or nothing."""
    known = [key for key in known if key != name]  # a key of another class may have this very name
    siblings = [k for k in known if k.rpartition(".")[0] == name.rpartition(".")[0]]
    same_ending = [k for k in known if k.rpartition(".")[2] == name.rpartition(".")[2]]
    nearest = (
        difflib.get_close_matches(name, siblings, n=1, cutoff=0.7)
        or difflib.get_close_matches(name, same_ending, n=1, cutoff=0.0)
        or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    )
    return f"; did you mean '{nearest[0]}'?" if nearest else ""


def _unknown_key(message: str) -> str | None:
    """The dotted key that no setting has, None when the message is about something else."""
    if found := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return joined(key_at(message, found.start()), f"{found[1]}.{found[2]}")
    if found := re.search(r"unrecognized arguments: --([\w.]+)", message):
        return joined(key_at(message, found.start()), found[1])
    if found := re.search(r"Option '([\w.]+)' is not accepted", message):
        return joined(key_at(message, found.start()), found[1])
    return None


def _where(key: str, config: str | None, argv: Sequence[str]) -> str:
    """The command line when an option speaks of the key, else the config's line where the key's last part stands."""
    last = key.rpartition(".")[2]
    spoken_of = any(_speaks_of(name, value, key) for name, value in options(argv))
    if config is None or not Path(config).is_file() or spoken_of:
        return "the command line"
    lines = Path(config).read_text(encoding="utf-8").splitlines()
    for name in filter(None, (key, last)):  # a class stands there with its module
        for number, line in enumerate(lines, start=1):
            if re.search(rf"\b{re.escape(name)}\b", line):
                return f"'{config}', line {number}"
    return f"'{config}'"


def options(argv: Sequence[str]) -> list[tuple[str, str]]:
    """``["--a.init_args.b=1", "--c", "2"]`` -> ``[("a.b", "1"), ("c", "2")]``."""
    pairs: list[tuple[str, str]] = []
    for argument in argv:
        if argument.startswith("--"):
            name, _, value = argument[2:].partition("=")
            pairs.append((name.replace(".init_args", ""), value))
        elif pairs:
            pairs[-1] = (pairs[-1][0], argument)
    return [pair for pair in pairs if pair[0] != "config"]


def _speaks_of(name: str, value: str, key: str) -> bool:
    """Whether an option sets the key, holds it in a group that it sets, or has it (a class) as its value."""
    if not key:
        return False
    inside = key.removeprefix(f"{name}.") if key.startswith(f"{name}.") else key
    return f".{name}".endswith(f".{key}") or bool(re.search(rf"(?<![\w.]){re.escape(inside)}(?![\w.])", value))
