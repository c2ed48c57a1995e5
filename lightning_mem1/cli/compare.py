"""``mem1 compare CONFIG [--memory all] [--seeds 0,1,2]``: memory modes trained and evaluated alike.

Each warm start, training and evaluation is one of the user's own commands in a process of its own. What is finished is
written down and not repeated: the same command resumes after Ctrl-C or a kill.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from lightning_mem1.cli import commands, errors, experiments, startup
from lightning_mem1.evaluation.comparison import report
from lightning_mem1.evaluation.comparison.settings import Comparison, modes, seeds_of
from lightning_mem1.evaluation.comparison.stage_ledger import Cost, StageLedger
from lightning_mem1.evaluation.comparison.stages import Stage, stages
from lightning_mem1.evaluation.comparison.trained_tokens import num_tokens
from lightning_mem1.io.file_lock import FileLock, Locked

# what follows ``mem1``, a file for what is printed -> exit code, CPU seconds
Start = Callable[[Sequence[str], Path], tuple[int, float]]


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; returns the exit code (0 done, 1 a mistake, 130 interrupted)."""
    return commands.run("compare", argv)


def run(given: startup.Opened) -> int:
    """Compare as an opened command line says; returns the exit code."""
    settings = startup.built(_settings, given)
    if settings is None:
        return 0
    title = f"{Path(given.config or 'comparison').stem}: memory modes compared"
    return compare(settings, title, " ".join(["mem1 compare", *given.given]))


def full_parser() -> ArgumentParser:
    """The parser of all settings."""
    parser = ArgumentParser(
        prog="mem1 compare",
        usage="%(prog)s CONFIG [--memory all] [--KEY VALUE ...]",
        description="Train and evaluate memory modes alike, and write the table.",
        parser_mode="omegaconf",
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="YAML file.")
    parser.add_argument("--memory", type=str | None, default=None, help="E.g. mem1,full, or all; null: the config's.")
    parser.add_argument("--seeds", type=str | None, default=None, help="E.g. 0,1,2; null: the config's.")
    parser.add_argument("--output", type=str | None, default=None, help="Folder; null: the config's.")
    parser.add_class_arguments(Comparison, "compare", instantiate=True)
    return parser


def _settings(argv: list[str], config: str | None) -> Comparison:
    parser = full_parser()
    try:
        given = parser.parse_args(argv)
    except argparse.ArgumentError as error:
        keys = list(vars(parser.get_defaults(skip_validation=True).as_flat()))
        raise ValueError(errors.explain_parsing(str(error), keys, config, argv)) from error
    settings: Comparison = parser.instantiate(given).compare
    more: dict[str, Any] = {}
    if given.memory is not None:
        configured = {mode.name: mode for mode in settings.modes}
        more["memory"] = [configured.get(mode.name, mode) for mode in modes(given.memory, "--memory")]
    if given.seeds is not None:
        more["seeds"] = seeds_of(str(given.seeds))
    return _checked(replace(settings, output=given.output or settings.output, **more))


def _checked(settings: Comparison) -> Comparison:
    """The settings; raises where a config of theirs is not there or is that of another command."""
    fit = ("fit", settings.fit)
    for name, command in (*(("warmstart", each) for each in settings.warmstart), fit):
        errors.check_config(experiments.found(command.config), experiments.names(), commands.COMMANDS[name].keys)
    return settings


def in_process_of_its_own(command: Sequence[str], log: Path) -> tuple[int, float]:
    """Run ``mem1`` with these arguments, on one thread unless OMP_NUM_THREADS says otherwise."""
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "lightning_mem1", *command], stdout=out, stderr=out, env=environment
        )
        try:
            _, status, used = os.wait4(process.pid, 0)
        except KeyboardInterrupt:  # Ctrl-C reaches both: let the command write what it keeps
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_utime + used.ru_stime


def compare(settings: Comparison, title: str, command: str, start: Start = in_process_of_its_own) -> int:
    """Run what is not finished, and write the report; returns the exit code.

    Args:
        settings: The comparison.
        title: Heading of the report.
        command: The command line, for the report.
        start: Runs a command.

    Raises:
        ValueError: the folder holds another comparison or is in use, or a command failed.
    """
    folder = Path(settings.output)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "compare.lock")
    try:
        lock.acquire()
    except Locked as error:
        raise ValueError(
            f"comparison is under way: expected a folder that no other writes, got '{folder}' of {error}; wait for its "
            "end, or set --output"
        ) from error
    try:
        return _compare(settings, StageLedger(folder), title, command, start)
    finally:
        lock.release()


def _compare(settings: Comparison, ledger: StageLedger, title: str, command: str, start: Start) -> int:
    every = stages(settings)
    todo = ledger.due(every)  # all are looked at before the first one runs
    again = [stage for stage in todo if ledger.done(stage)]
    more = f"; {len(again)} are repeated, whose files are gone" if again else ""
    print(f"{len(every)} stages, {len(every) - len(todo) + len(again)} of them finished before{more}", flush=True)
    paths = report.write(settings, ledger, title, command, hardware())
    names = {stage.name for stage in todo}
    for stage in todo:
        _run(stage, ledger, start, fresh=stage.kind == "evaluate" and not names.isdisjoint(stage.needs))
        if stage.kind == "evaluate":
            paths = report.write(settings, ledger, title, command, hardware())
    if paths:
        print(paths[0].read_text(encoding="utf-8").split("\n## ")[0])
    print(f"results in {', '.join(map(str, paths))}")
    return 0


def _run(stage: Stage, ledger: StageLedger, start: Start, fresh: bool) -> None:
    """Run a stage; of one that is repeated, what it took the first time stays written down.

    `fresh` drops what an evaluation has played: it was of another policy, where that was just trained.
    """
    print(f"{time.strftime('%H:%M:%S')}  {stage.name}", flush=True)
    attempts, log, begun = ledger.begun(stage), ledger.log(stage), time.perf_counter()
    resumed = [f"--ckpt_path={stage.resumes}"] if stage.resumes and stage.resumes.is_file() else []
    resumed += ["--fresh"] if fresh else []
    code, cpu_seconds = start([*stage.command, *resumed], log)
    if code == errors.INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise ValueError(
            f"{stage.name} failed with exit code {code}: {' '.join(last)[:300]} (all of it: '{log}'); what is finished "
            "is kept, the same command resumes"
        )
    seconds = round(time.perf_counter() - begun, 1)
    if ledger.done(stage) is None:
        ledger.finish(stage, Cost(seconds, round(cpu_seconds, 1), attempts, num_tokens(stage)))


def hardware() -> str:
    """``AMD EPYC, 2 cores``, as far as the machine says."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor() or platform.machine()}, {os.cpu_count()} cores"
