"""Which weights a command uses: those of a checkpoint, or `model.policy` as it is. Found without heavy imports.

``--ckpt_path`` takes ``last``, ``best``, a file or ``none``. Commands that play ask for it where the experiment has a
run: the policy before training is never taken for the trained one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lightning_mem1.cli.errors import check_printable
from lightning_mem1.io.terminal import printable

NONE, LAST, BEST = "none", "last", "best"
WORDS = (LAST, BEST, NONE)
TRAIN_FIRST = "train first (mem1 fit), or set --ckpt_path to a file"


@dataclass(frozen=True)
class Asked:
    """What settings say of the weights.

    Attributes:
        ckpt_path: A word of `WORDS` or a file; None for nothing.
        root: Where runs are; None for ``runs/<experiment>``.
        experiment: Its name.
        otherwise: What to do when there is no checkpoint.
    """

    ckpt_path: str | None
    root: str | None
    experiment: str
    otherwise: str = "leave --ckpt_path out"

    @property
    def folder(self) -> Path:
        """Where the experiment's runs are."""
        return Path(self.root) if self.root else Path("runs") / self.experiment

    def run(self) -> Path | None:
        """The folder of the experiment's newest run that has a checkpoint; None without one."""
        for name in ("last", "*"):
            if found := sorted(self.folder.glob(f"**/checkpoints/{name}.ckpt"), key=_age):
                return found[-1].parents[1]
        return None

    def path(self) -> Path | None:
        """The checkpoint; None for `model.policy` as it is.

        Raises:
            FileNotFoundError: there is none.
        """
        if self.ckpt_path in (None, NONE):
            return None
        if self.ckpt_path not in (LAST, BEST):
            path = Path(str(self.ckpt_path))
            if not path.is_file():
                raise FileNotFoundError(f"no such checkpoint: expected a file, got '{path}'; set --ckpt_path")
            return path
        if (run := self.run()) is None:
            raise FileNotFoundError(
                f"no checkpoint to resume from: expected one under '{self.folder}', got none; {self.otherwise}"
            )
        path = run / "checkpoints" / f"{self.ckpt_path}.ckpt"
        if not path.is_file():
            others = ", ".join(sorted(each.name for each in path.parent.glob("*.ckpt")))
            raise FileNotFoundError(
                f"no such checkpoint: expected '{path}', got only {others}; set --ckpt_path to a file"
            )
        return path

    def check_said(self) -> None:
        """Raise ValueError when the experiment has a run, and nothing says whether its weights are meant."""
        if self.ckpt_path is None and (run := self.run()):
            words = [word for word in (LAST, BEST) if (run / "checkpoints" / f"{word}.ckpt").is_file()]
            raise ValueError(
                f"which weights: expected --ckpt_path, got none where '{run}' is a run of this experiment; give "
                f"--ckpt_path {', '.join([*words, 'a file'])}, or none for model.policy as it is"
            )


@dataclass(frozen=True)
class Uses:
    """What a command does with a checkpoint.

    Attributes:
        plays: It acts with the weights, so it always says which, and asks where that is open.
        default: Of ``--ckpt_path``.
    """

    plays: bool = False
    default: str | None = None


def announced(argv: Sequence[str], config: str, uses: Uses) -> tuple[str, str | None]:
    """What the first line says of the weights, and the checkpoint; nothing where it cannot be said yet.

    Args:
        argv: The arguments.
        config: The config's path. Both are read without the classes of the settings.
        uses: What the command does with a checkpoint.
    """
    content, given = yaml.safe_load(Path(config).read_text(encoding="utf-8")), _options(argv)

    def value(key: str) -> str | None:
        found = given.get(key, _at(content, key))
        return None if found in (None, "null") else str(found)

    asked = Asked(
        value("ckpt_path") or uses.default,
        value("trainer.default_root_dir"),
        value("experiment") or Path(config).stem,
    )
    try:
        path = asked.path()
        check_printable([str(path)])
        if uses.plays and needs_saying(argv):
            asked.check_said()
    except (ValueError, OSError):
        return "", None  # said by what reads the settings for good
    if path is None and (not uses.plays or "human" in given):
        return "", None
    return f" {named(path, value('model.policy') or 'bundled')}", None if path is None else str(path)


def named(checkpoint: str | Path | None, policy: str) -> str:
    """``with the weights of runs/qa/0/checkpoints/last.ckpt``, or ``with model.policy bundled as it is``."""
    return printable(f"with the weights of {checkpoint}" if checkpoint else f"with model.policy {policy} as it is")


def needs_saying(argv: Sequence[str]) -> bool:
    """Whether weights are used that the command line does not name: with ``--model.policy`` it does."""
    return not {"model.policy", "human"} & _options(argv).keys()


def _options(argv: Sequence[str]) -> dict[str, str]:
    """``["--a.b=1", "--c", "2", "--d"]`` -> ``{"a.b": "1", "c": "2", "d": ""}``."""
    found, name = {}, ""
    for argument in argv:
        if argument.startswith("--"):
            name, _, value = argument[2:].partition("=")
            found[name] = value
        elif name:
            found[name], name = argument, ""
    return found


def _at(content: Any, key: str) -> Any:
    """The value of a dotted key in nested settings; None where there is none."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, Mapping) else None
    return content


def _age(path: Path) -> float:
    return path.stat().st_mtime
