"""``mem1 evaluate CONFIG [--ckpt_path PATH] [--objectives 1,2,4] [--memory mem1,full]``: measure.

Every memory mode plays the same tasks at every number of objectives, greedily unless a temperature is given. Each
finished trajectory is written down at once, so a run that was stopped resumes with the same command.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lightning_mem1.checks import check_least
from lightning_mem1.cli import commands, errors, startup
from lightning_mem1.cli.lightning_cli import PlayingCommandLine, mlflow_logger
from lightning_mem1.context.memory import MemoryMode
from lightning_mem1.context.settings import memory_mode
from lightning_mem1.evaluation import tables
from lightning_mem1.evaluation.ledger import Key, Ledger, Record, settings_hash
from lightning_mem1.evaluation.measures import by_turn, measures
from lightning_mem1.evaluation.player import Player, weights_fingerprint
from lightning_mem1.evaluation.published import Published
from lightning_mem1.evaluation.report import plots
from lightning_mem1.evaluation.report.episode import episode
from lightning_mem1.evaluation.report.page import page
from lightning_mem1.evaluation.shared_engine import UnplayedRow, play_rows
from lightning_mem1.evaluation.tables import Baseline, Row
from lightning_mem1.evaluation.task_sets import TaskSet, task_sets
from lightning_mem1.io.atomic_files import write_atomic
from lightning_mem1.io.redaction import reason
from lightning_mem1.tracking.artifacts import writes_mlflow
from lightning_mem1.tracking.datasets import describe
from lightning_mem1.tracking.mlflow_logger import DeletedExperiment, StoreUnavailable
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.types import Trajectory

# settings of the data that change no trajectory: each record holds the number of objectives
TRAINING_ONLY = ("tasks_per_step", "group_size", "num_rl_steps", "num_val_tasks", "val_batch_size", "objectives")


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate; returns the exit code (0 done, 1 a mistake, 130 interrupted)."""
    return commands.run("evaluate", argv)


def run(given: startup.Opened) -> int:
    """Evaluate as an opened command line says; returns the exit code."""
    with startup.quiet():
        cli = startup.built(EvaluatingCommandLine, given)
        return 0 if cli is None else _evaluate(cli)


class EvaluatingCommandLine(PlayingCommandLine):
    """The settings, and what is played."""

    command = "evaluate"
    about = "Play tasks in several memory modes and lengths, and write every metric with its interval."

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what is played, and where the results go."""
        super().add_arguments_to_parser(parser)
        add = parser.add_argument
        add("--objectives", type=str | None, default=None, help="E.g. 1,2,4,8; left out: as the config has it.")
        add("--memory", type=str | None, default=None, help="E.g. mem1,full,my_file.plan; left out: the config's.")
        add("--tasks", type=int, default=100, help="Tasks of each number of objectives, spread over the split.")
        add("--temperature", type=float, default=0.0, help="Of the sampling; 0 is greedy.")
        add("--split", type=Literal["test", "val"], default="test", help="Which tasks.")
        add("--output", type=str | None, default=None, help="Folder; null: runs/<experiment>/evaluate/<settings>.")
        add("--page", type=int, default=4, help="Trajectories of each row on the page; 0 for no page.")
        add("--published", action="store_true", help="Print published numbers as well.")
        add("--fresh", action="store_true", help="Play everything again, whatever the folder holds.")

    def before_instantiate_classes(self) -> None:
        """Check what is played."""
        self.modes = memory_modes(self.config.memory, self.config.model.memory)
        self.numbers = objective_numbers(self.config.objectives)
        for name, least in (("tasks", 1), ("page", 0), ("temperature", 0)):
            check_least(f"--{name}", self.config[name], least)
        super().before_instantiate_classes()


def memory_modes(given: str | None, configured: Any) -> list[MemoryMode]:
    """The memory modes that are played; raises ValueError for one that does not exist.

    Args:
        given: Words and dotted names, such as ``"mem1,full,my_file.plan"``; None for the configured one alone.
        configured: The setting ``model.memory``. A mode of the list takes its settings where it has the same ones: with
            ``{mode: window, window: 3}`` three turns stay in `window`, and three are retrieved in `amem`.
    """
    ours = memory_mode(configured)
    if given is None:
        return [ours]
    modes = []
    for name in dict.fromkeys(part.strip() for part in given.split(",")):
        mode = ours if name == ours.name else memory_mode(name, "--memory")
        shared = {each.name for each in dataclasses.fields(mode)} & ours.settings.keys()
        modes.append(dataclasses.replace(mode, **{key: ours.settings[key] for key in shared}))
    return modes


def objective_numbers(given: str | None) -> list[int] | None:
    """``"1,2,4"`` -> its numbers, None when nothing was given; raises ValueError for what is no number from 1."""
    if given is None:
        return None
    numbers = []
    for part in given.split(","):
        if not part.strip().isdecimal() or not int(part):
            raise ValueError(f"objectives must be whole numbers from 1, got '{part}'; set --objectives, e.g. 1,2,4,8")
        numbers.append(int(part))
    return list(dict.fromkeys(numbers))


def _evaluate(cli: Any) -> int:
    module, config = cli.loaded_module(), cli.config
    found = task_sets(cli.datamodule.source, cli.numbers, config.split, config.tasks)
    settings = played_with(cli.settings, module, cli.datamodule.seed, config.split, config.temperature)
    folder = config.output or Path("runs") / cli.experiment / "evaluate" / settings_hash(settings)
    ledger = Ledger(folder, settings, config.fresh)
    try:
        rows = _play(module, found, cli.modes, ledger, config)
    except KeyboardInterrupt:
        print(
            f"interrupted: {len(ledger.records)} finished trajectories are kept in '{folder}'; the same command "
            "continues from there",
            file=sys.stderr,
        )
        return errors.INTERRUPTED
    baselines = [baseline for horizon in found for baseline in horizon.baselines()]
    papers = [paper for horizon in found if config.published for paper in horizon.published()]
    keys = [
        (mode.spelled, each.objectives, i) for mode in cli.modes for each in found for i in each.indices[: config.page]
    ]
    paths = _write(cli, ledger, rows, baselines, papers)
    paths += _drawn(cli, ledger, rows, keys)
    print(f"results in {', '.join(map(str, paths))}")
    _log(cli, rows, paths)
    return 0


def played_with(
    settings: dict[str, Any], module: Mem1Module, seed: int, split: str, temperature: float = 0.0
) -> dict[str, Any]:
    """What a trajectory depends on, of all dotted settings: its task, its policy and how the two talk.

    The memory mode is in each record, with its settings.
    """
    ours = {"model.policy", "model.compute.dtype"}
    dropped = {f"data.init_args.{name}" for name in TRAINING_ONLY}
    dropped |= {
        "data.init_args.seed",
        "model.rollout.temperature",
        "model.rollout.top_p",
        "model.rollout.resample_rounds",
    }
    kept = {
        key: value
        for key, value in settings.items()
        if key in ours or (key.startswith(("data.", "model.rollout.")) and _setting(key) not in dropped)
    }
    if module.engine_settings.kind == "server":  # its model plays; where it runs does not matter
        names = ("model.engine.kind", "model.engine.server.model", "model.engine.server.text")
        kept |= {name: settings.get(name) for name in names}
    if temperature:
        kept["temperature"] = temperature
    return {**kept, "split": split, "seed": seed, "weights": weights_fingerprint(module.policy)}


def _setting(key: str) -> str:
    """``data.init_args.objectives.2``, from a setting that is a dict, belongs to ``data.init_args.objectives``."""
    return ".".join(key.split(".")[:3])


def _play(
    module: Mem1Module, found: Sequence[TaskSet], modes: Sequence[MemoryMode], ledger: Ledger, config: Any
) -> list[Row]:
    """Play what the ledger lacks; a row for each memory mode and number of objectives."""
    rows = []
    with _progress() as bar:
        for mode in modes:
            for horizon in found:
                player = Player(module, horizon.source, mode, config.temperature)
                rows.append((mode.spelled, horizon, _asked(player, horizon, ledger, bar, config.page)))
        play_rows([asked for *_, asked in rows])
    held = ledger.records
    return [
        tables.row([held[mode, each.objectives, index] for index in each.indices], asked.settings.max_context_tokens)
        for mode, each, asked in rows
    ]


def _asked(player: Player, horizon: TaskSet, ledger: Ledger, bar: Progress, num_shown: int) -> UnplayedRow:
    """The tasks that the ledger lacks."""
    k, mode = horizon.objectives, player.memory.spelled
    tasks = horizon.tasks()
    todo = [index for index in tasks if (mode, k, index) not in ledger.records]
    row = f"{mode}, {tables.objectives(k)}"
    shown = bar.add_task(row, total=len(tasks), completed=len(tasks) - len(todo))

    def note(place: int, trajectory: Trajectory) -> None:
        index = todo[place]
        if index in horizon.indices[:num_shown]:
            ledger.add_episode((mode, k, index), episode(trajectory, player.view, row=row))
        ledger.add(record(player, k, index, trajectory))
        bar.advance(shown)

    return UnplayedRow(player, [tasks[index] for index in todo], player.engine_settings(list(tasks.values())), note)


def record(player: Player, objectives: int, index: int, trajectory: Trajectory) -> Record:
    """A finished trajectory in numbers: task `index` among those of as many objectives."""
    view, mode, reason = player.view, player.memory.spelled, str(trajectory.stop_reason)
    numbers, turns = measures(trajectory, view), by_turn(trajectory, view)
    return Record(mode, objectives, index, trajectory.task.id, reason, trajectory.error, numbers, turns)


def _progress() -> Progress:
    """A bar on stderr; nothing where that is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _write(cli: Any, ledger: Ledger, rows: list[Row], baselines: list[Baseline], papers: list[Published]) -> list[Path]:
    """Put the results on disk and on screen; returns the files."""
    results = tables.as_json(ledger.settings, rows, baselines, papers)
    paths = [ledger.folder / "results.json", ledger.folder / "results.csv"]
    write_atomic(paths[0], (json.dumps(results, indent=1) + "\n").encode())
    write_atomic(paths[1], tables.as_csv(rows, baselines).encode())
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 240  # a file has no edge
    for table in tables.on_screen(rows, baselines, papers):
        console.print(table)
    for line in tables.remarks(rows):
        console.print(line, markup=False, soft_wrap=True)
    return paths


def _drawn(cli: Any, ledger: Ledger, rows: list[Row], keys: Sequence[Key]) -> list[Path]:
    """The pictures of the rows and the page of the trajectories with these keys; returns the files."""
    paths = plots.save(plots.of_rows(rows), ledger.folder)
    if keys:
        kept = ledger.episodes()
        title = f"{cli.experiment}: evaluated on {cli.config.split}"
        shown = [kept[key] for key in keys if key in kept]
        paths.append(ledger.folder / "page.html")
        write_atomic(paths[-1], page(shown, title, sum(row.num_trajectories for row in rows)).encode())
    return paths


def _log(cli: Any, rows: list[Row], paths: list[Path]) -> None:
    """A run in the logger, as in training: a step is a number of objectives."""
    given = cli.config_init.trainer.logger
    if given is False:
        return
    if given in (None, True):
        given = mlflow_logger(cli.experiment, cli.config.tracking_uri, "evaluate")
        given.goes_on = "the results are in the output folder"
    for logger in given if isinstance(given, list | tuple) else [given]:
        try:
            _log_to(logger, cli, rows, paths)
        except DeletedExperiment:
            raise
        except Exception as error:  # every store raises its own kinds, and the results are on the disk
            if not isinstance(error, StoreUnavailable):  # which has been said
                print(f"the logger did not take the evaluation ({reason(error)})", file=sys.stderr)


def _log_to(logger: Any, cli: Any, rows: list[Row], paths: list[Path]) -> None:
    logger.log_hyperparams(cli.settings)
    if writes_mlflow(logger):
        describe(logger, cli.datamodule, {cli.config.split: "evaluation"})
    for step, metrics in tables.as_metrics(rows, cli.config.split):
        logger.log_metrics(metrics, step=step)
    if keep := getattr(logger.experiment, "log_artifact", None):  # MLflow's client
        for path in paths:
            keep(logger.run_id, str(path), "evaluate")
    logger.finalize("success")
