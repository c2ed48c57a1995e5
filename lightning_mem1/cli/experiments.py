"""``mem1 experiments [copy NAME [TARGET]]``: the experiments that come with the package, by name.

An experiment is a YAML file. Its name is its path without the ending: ``webshop``, ``claim/qa``. A command takes the
name in place of a file, from any folder.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from lightning_mem1.cli import errors


def folder() -> Path:
    """The folder of the experiments: inside the installed package, next to it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "experiments"
    return inside if inside.is_dir() else package.parent / "experiments"


def names() -> list[str]:
    """The names of all experiments, sorted."""
    return sorted(path.relative_to(folder()).with_suffix("").as_posix() for path in folder().rglob("*.yaml"))


def found(given: str) -> str:
    """The path of a config that is given as a file, as a file without its ending, or as the name of an experiment.

    A file wins over an experiment of the same name. What is neither comes back as it is.
    """
    for path in (given, f"{given}.yaml"):
        if Path(path).is_file():
            return path
    return str(folder() / f"{given}.yaml") if given in names() else given


def main(argv: Sequence[str] | None = None) -> int:
    """List the experiments or copy one; returns the exit code (0 done, 1 a mistake, 2 wrong arguments)."""
    return errors.run(_experiments, argv)


def _experiments(argv: list[str]) -> int:
    given = parser().parse_args(argv)
    print(f"wrote {copied(given.name, given.target)}" if given.action else listing())
    return 0


def parser(kind: type[argparse.ArgumentParser] = argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser of the command line, of a kind of parser."""
    made = kind(
        "mem1 experiments", description="List the experiments that come with the package, or copy one to change it."
    )
    made.add_argument("action", nargs="?", choices=("copy",), help="copy one; left out: list them")
    made.add_argument("name", nargs="?", help="what to copy, for example webshop or claim/qa")
    made.add_argument("target", nargs="?", help="a new file, or a folder; default: the current folder")
    return made


def listing() -> str:
    """The experiments by the command that takes them, each with the first line of its comment."""
    texts = {name: (folder() / f"{name}.yaml").read_text(encoding="utf-8") for name in names()}
    takes = {name: _command(text) for name, text in texts.items()}
    width = max(map(len, texts), default=0) + 2
    lines = []
    fit = ", also with evaluate, play, export and serve"
    for command, others in (("fit", fit), ("warmstart", ""), ("compare", "")):
        lines += [f"mem1 {command} NAME{others}:"]
        lines += [f"  {n:{width}}{t.splitlines()[0].lstrip('# ')}" for n, t in texts.items() if takes[n] == command]
        lines += [""]
    return "\n".join([*lines, "mem1 experiments copy NAME [TARGET] copies one, to change it."])


def _command(text: str) -> str:
    """The command that takes a config, by its first key."""
    found = re.search(r"^(warmstart|compare):", text, re.MULTILINE)
    return found[1] if found else "fit"


def copied(name: str | None, target: str | None = None) -> Path:
    """Copy an experiment.

    Args:
        name: Its name.
        target: A new file, or a folder for a file of the experiment's own name; None for the current folder.

    Raises:
        ValueError: there is no such experiment, or the file is there already.
    """
    if name is None or name not in names():
        nearest = errors.did_you_mean(name or "", names()) or "; mem1 experiments lists them"
        raise ValueError(f"no such experiment: expected the name of one, got '{name or 'nothing'}'{nearest}")
    path = Path(target or ".").expanduser()
    path = path / f"{Path(name).name}.yaml" if path.is_dir() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            file.write((folder() / f"{name}.yaml").read_bytes())
    except FileExistsError as error:
        raise ValueError(
            f"cannot copy '{name}': expected a new file, got '{path}', which exists; name another"
        ) from error
    return path
