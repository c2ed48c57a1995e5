"""``mem1 init NAME``: write a folder with an environment of one's own, its configs and its test, to begin with."""

from __future__ import annotations

import argparse
import keyword
import string
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lightning_mem1.cli import errors
from lightning_mem1.io.atomic_files import atomic_folder

TEMPLATES = Path(__file__).parent / "templates"
ENDING = ".template"
MAX_NAME = 60  # characters: it is part of file names


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder; returns the exit code (0 done, 1 a mistake, 2 wrong arguments)."""
    return errors.run(_init, argv)


def _init(argv: list[str]) -> int:
    given = parser().parse_args(argv)
    folder = written(given.name)
    names = ", ".join(sorted(path.name for path in folder.iterdir()))
    print(f"wrote {folder}/: {names}\n\nNext:")
    for line in (f"cd {folder}", "pytest", "mem1 warmstart warmstart.yaml", f"mem1 fit {folder.name}.yaml"):
        print(f"  {line}")
    return 0


def parser(kind: type[argparse.ArgumentParser] = argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser of the command line, of a kind of parser."""
    made = kind(
        "mem1 init",
        description="Write a folder with an environment of your own, an expert to clone, configs and a test, as a "
        "beginning: they run as they are, and you replace them by yours.",
    )
    made.add_argument("name", help="name of the new folder and of the module in it, for example my_task")
    return made


def written(name: str, parent: str | Path = ".") -> Path:
    """Write the folder of a task.

    Args:
        name: Of the folder, and of the module in it.
        parent: Where it is made.

    Raises:
        ValueError: the name cannot be a module's, or is taken.
        OSError: the folder cannot be written.
    """
    _check_name(name)
    folder = Path(parent) / name
    if folder.exists() or folder.is_symlink():
        raise ValueError(f"cannot write '{folder}': expected a new folder, got one that exists; give another name")
    if _is_module(name) or f"{name}.yaml{ENDING}" in [path.name for path in TEMPLATES.iterdir()]:
        raise ValueError(
            f"the name is taken: expected one that neither Python nor the package uses, got '{name}'; give another name"
        )
    with atomic_folder(folder) as new:
        for file, text in files(name).items():
            (new / file).write_text(text, encoding="utf-8")
    return folder


def files(name: str) -> dict[str, str]:
    """The files of a task of this name, by their names."""
    found = {}
    for path in sorted(TEMPLATES.glob(f"*{ENDING}")):
        text = string.Template(path.read_text(encoding="utf-8")).substitute(name=name)
        found[path.name.removesuffix(ENDING).replace("task", name, 1)] = text
    return found


def _check_name(name: str) -> None:
    plain = name.isidentifier() and name.isascii() and not name.startswith("_") and len(name) <= MAX_NAME
    if not plain or keyword.iskeyword(name):
        raise ValueError(
            f"no name of a module: expected at most {MAX_NAME} letters, digits and underscores, a letter first, got "
            f"'{name[:80]}'; for example mem1 init my_task"
        )


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return True
