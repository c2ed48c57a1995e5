"""The commands of a comparison, in the order in which they are run: pure functions of its settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_mem1.context.memory import MemoryMode
from lightning_mem1.evaluation.comparison.settings import OBJECTIVES, Cloning, Comparison
from lightning_mem1.evaluation.ledger import LINES

SHARED = "shared"
CARD = "README.md"  # of a policy


@dataclass(frozen=True)
class Stage:
    """One command of a comparison.

    Attributes:
        name: Kind, then what it is for: ``fit/mem1/0``.
        command: What follows ``mem1``.
        output: Folder that it writes.
        resumes: Checkpoint that it resumes from once it is there.
        needs: Names of the commands whose files it reads.
    """

    name: str
    command: tuple[str, ...]
    output: Path
    resumes: Path | None = None
    needs: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``warmstart``, ``fit`` or ``evaluate``."""
        return self.name.split("/")[0]

    @property
    def product(self) -> Path:
        """A file that is there once it is finished, as long as nobody removed what it wrote."""
        return self.resumes or self.output / (LINES if self.kind == "evaluate" else CARD)

    @property
    def mode(self) -> str:
        """Name of the memory mode, or ``shared``."""
        return self.name.split("/")[1]


def stages(settings: Comparison) -> list[Stage]:
    """Every command: warm starts, then for each seed the training and the evaluations of each mode.

    A seed is finished for all modes before the next one begins, so that a comparison that is stopped early compares.
    """
    return [*_warmstarts(settings), *(s for seed in settings.seeds for s in _of_seed(settings, seed))]


def _of_seed(settings: Comparison, seed: int) -> Iterator[Stage]:
    for mode in settings.modes:
        yield training(settings, mode, seed)
        yield from (each for _, each in evaluations(settings, mode, seed))


def _warmstarts(settings: Comparison) -> Iterator[Stage]:
    for number, cloning in enumerate(settings.warmstart):
        for mode in [None] if cloning.shared else settings.modes:
            yield _warmstart(settings, number, cloning, mode)


def _warmstart(settings: Comparison, number: int, cloning: Cloning, mode: MemoryMode | None) -> Stage:
    output = _policy(settings, number, mode)
    given: dict[str, Any] = dict(cloning.set) | {"warmstart.output": str(output)}
    if mode is not None:
        given["warmstart.memory"] = _as_setting(mode)
    if number:
        given["warmstart.init_from"] = str(_policy(settings, number - 1, mode))
    needs = _cloned(settings, number - 1, mode)
    return Stage(_cloning(mode, number), ("warmstart", cloning.config, *options(given)), output, needs=needs)


def training(settings: Comparison, mode: MemoryMode, seed: int) -> Stage:
    """The training of a mode from a seed."""
    output = Path(settings.output) / "fit" / mode.name / str(seed)
    given = _shared(settings, mode) | {"seed_everything": seed, "trainer.default_root_dir": str(output)}
    given |= {"trainer.logger": {"class_path": "CSVLogger", "init_args": {"save_dir": str(output), "name": "metrics"}}}
    command, needs = ("fit", settings.fit.config, *options(given)), _cloned(settings, len(settings.warmstart) - 1, mode)
    return Stage(f"fit/{mode.name}/{seed}", command, output, output / "checkpoints" / "last.ckpt", needs)


def evaluations(settings: Comparison, mode: MemoryMode, seed: int) -> list[tuple[list[int], Stage]]:
    """The evaluations of a mode from a seed, each with the values that it plays: objectives are played in one."""
    how = settings.evaluate
    groups = [list(how.values)] if how.key == OBJECTIVES else [[value] for value in how.values]
    return [(values, _evaluation(settings, mode, seed, values)) for values in groups]


def _evaluation(settings: Comparison, mode: MemoryMode, seed: int, values: Sequence[int]) -> Stage:
    how, joined = settings.evaluate, ",".join(map(str, values))
    name = f"evaluate/{mode.name}/{seed}/{how.key}-{joined.replace(',', '-')}"
    output = Path(settings.output) / name
    trained = training(settings, mode, seed)
    given = _shared(settings, mode) | how.set | {how.key: joined if how.key == OBJECTIVES else values[0]}
    given |= {"tasks": how.tasks, "page": how.page, "ckpt_path": str(trained.resumes), "output": str(output)}
    given |= {"trainer.logger": False}
    command, needs = ("evaluate", settings.fit.config, *options(given)), (trained.name, *trained.needs)
    return Stage(name, command, output, needs=needs)


def _shared(settings: Comparison, mode: MemoryMode) -> dict[str, Any]:
    """What training and evaluation have in common."""
    given = dict(settings.fit.set) | {"model.memory": _as_setting(mode)}
    if settings.warmstart:
        given["model.policy"] = str(_policy(settings, len(settings.warmstart) - 1, mode))
    return given


def _policy(settings: Comparison, number: int, mode: MemoryMode | None) -> Path:
    """Where warm start `number` of a mode is written."""
    shared = settings.warmstart[number].shared or mode is None
    return Path(settings.output) / "policies" / f"{number}-{SHARED if shared else mode.name}"  # type: ignore[union-attr]


def _cloned(settings: Comparison, number: int, mode: MemoryMode | None) -> tuple[str, ...]:
    """The name of warm start `number` of a mode; nothing before the first."""
    return () if number < 0 else (_cloning(None if settings.warmstart[number].shared else mode, number),)


def _cloning(mode: MemoryMode | None, number: int) -> str:
    return f"warmstart/{mode.name if mode else SHARED}/{number}"


def _as_setting(mode: MemoryMode) -> Any:
    """A mode as its word, or with its settings where it has any."""
    return mode.settings if len(mode.settings) > 1 else mode.name


def options(given: Mapping[str, Any]) -> list[str]:
    """Settings as a command line has them; what is no text as JSON, which YAML reads.

    >>> options({"model.lr": 0.1, "trainer.logger": False, "model.memory": "mem1"})
    ['--model.lr=0.1', '--trainer.logger=false', '--model.memory=mem1']
    """
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in given.items()]
