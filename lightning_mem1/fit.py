"""``python -m lightning_mem1.fit CONFIG [--dotted.override value]``: train a policy.

A YAML holds only what differs from the defaults below. Heavy imports happen inside functions, so that the first line is
on the screen before they begin.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_mem1 import errors

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.cli import LightningCLI

RUN_FOLDER = "LIGHTNING_MEM1_RUN_FOLDER"  # tells the processes of further ranks where the first one writes
TRAINER_DEFAULTS: dict[str, Any] = {
    "accelerator": "auto",
    "devices": 1,
    "max_epochs": -1,  # data.num_rl_steps ends the run
    "check_val_every_n_epoch": None,  # count batches over epochs, however long one is
    "val_check_interval": 10,  # batches, and a batch is an rl_step
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,  # tasks are shared out by the datamodule
}
QUIET = (  # true of this package on purpose, and no news to a user
    ".*does not have many workers.*",
    ".*Checkpoint directory .* exists.*",
    ".*Found .* module.* in eval mode.*",
    ".*LightningCLI's args parameter.*",
    ".*GPU available but not used.*",
    ".*does not have a CUDA-capable.*",
    ".*isinstance.treespec, LeafSpec.*",
    ".*barrier.*device.*",
    ".*recommended to use .*sync_dist.*",  # the callbacks' torchmetrics have already met over ranks
    ".*is_gradient_checkpointing.*",  # transformers about itself
    ".*skip_none parameter.*",  # jsonargparse: its successor is not in every version of the range
)


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit code (0 done, 1 a mistake, 130 interrupted)."""
    return errors.run(_fit, argv)


def _fit(argv: list[str]) -> int:
    argv, config = _with_config_option(argv)
    shows_only = any(a in ("--help", "-h") or a.startswith(("--help", "--print_config")) for a in argv)
    if not shows_only:
        if config is None:
            raise ValueError(
                "no config: expected a YAML file, e.g. experiments/webshop.yaml; --help lists the settings"
            )
        errors.check_config(config)
        if "LOCAL_RANK" not in os.environ:
            print(f"loading {config} ...", flush=True)
    with _quiet(), _restored_interrupts():
        cli = _build(argv, config)
        return 0 if cli is None else _train(cli)


def _build(argv: list[str], config: str | None) -> LightningCLI | None:
    """Parse and instantiate everything; None when the command line only asked to show something."""
    import argparse

    command_line: Any = _command_line_class()
    try:
        return command_line(argv, config)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    except SystemExit as done:  # --help and --print_config
        if done.code:
            raise
        return None


def _train(cli: LightningCLI) -> int:
    from lightning_mem1.callbacks import RLCheckpoint

    path = cli.resume_path  # type: ignore[attr-defined]
    checkpoints = [c for c in cli.trainer.checkpoint_callbacks if isinstance(c, RLCheckpoint)]
    try:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=path, weights_only=True)
    except SystemExit:  # how Lightning leaves after Ctrl-C
        print(_say_what_is_kept(getattr(cli.model, "rl_step", 0), checkpoints), file=sys.stderr)
        return errors.INTERRUPTED
    _say_where(cli.trainer, checkpoints)
    return 0


def _say_what_is_kept(done: int, checkpoints: Sequence[Any]) -> str:
    """How far an interrupted run came, and how many rl_steps of it are on disk."""
    import torch

    path = next((c.last_path for c in checkpoints if c.last_path.is_file()), None)
    if path is None:
        return (
            f"interrupted after {done} rl_steps; {'no checkpoint was written' if done else 'nothing was trained yet'}"
        )
    kept = torch.load(path, map_location="cpu", weights_only=True)["lightning_mem1"]["rl_step"]
    lost = "" if kept == done else f", {kept} of them kept"
    return f"interrupted after {done} rl_steps{lost}; resume with --ckpt_path {path}"


def _say_where(trainer: Trainer, checkpoints: Sequence[Any]) -> None:
    if not trainer.is_global_zero:
        return
    for checkpoint in checkpoints:
        print(f"adapter {checkpoint.adapter_path}, checkpoint {checkpoint.last_path}")
    for logger in trainer.loggers:
        if uri := getattr(logger, "_tracking_uri", None):
            print(f"curves and transcripts: mlflow ui --backend-store-uri {uri}")


def _command_line_class() -> type[LightningCLI]:
    """The LightningCLI of this package (made here because importing Lightning takes seconds)."""
    from jsonargparse import Namespace
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

    from lightning_mem1.datamodule import TaskDataModule
    from lightning_mem1.module import Mem1Module

    class SaveConfig(SaveConfigCallback):
        """Writes config.yaml beside the checkpoints and logs every setting as a parameter."""

        def save_config(self, trainer: Any, pl_module: Any, stage: str) -> None:
            path = Path(trainer.default_root_dir) / self.config_filename
            path.parent.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, str(path), skip_none=False, overwrite=True, multifile=False)
            settings = flat(self.config.as_dict())
            for logger in trainer.loggers:
                logger.log_hyperparams(settings)

    class CommandLine(LightningCLI):
        """Positional config, defaults of this package, one-line errors."""

        def __init__(self, argv: list[str], config_path: str | None) -> None:
            self.config_path = config_path
            self.experiment = Path(config_path).stem if config_path else "experiment"
            self.resume_path: str | None = None
            super().__init__(
                Mem1Module,
                TaskDataModule,
                SaveConfig,
                save_config_kwargs={"save_to_log_dir": False},
                trainer_defaults=TRAINER_DEFAULTS,
                seed_everything_default=0,
                parser_kwargs={
                    "parser_mode": "omegaconf",
                    "exit_on_error": False,
                    "allow_abbrev": False,
                    "prog": "python -m lightning_mem1.fit CONFIG",
                    "description": "Train a constant-memory policy by reinforcement learning.",
                },
                subclass_mode_data=True,
                run=False,
                args=argv,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
            )

        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.set_defaults({"data": {"class_path": "lightning_mem1.datamodule.WebShopData"}})
            parser.add_argument(
                "--ckpt_path", type=str | None, default=None, help="Go on from this checkpoint, or from the 'last' one."
            )
            parser.add_argument("--experiment", type=str | None, default=None, help="Name; null for the config's.")
            parser.add_argument(
                "--tracking_uri", type=str, default="sqlite:///mlflow.db", help="MLflow's store of the default logger."
            )

        def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
            import argparse

            try:
                super().parse_arguments(parser, args)
            except argparse.ArgumentError as error:
                known = known_keys(parser)
                raise ValueError(errors.explain_parsing(str(error), known, self.config_path, args)) from error

        def before_instantiate_classes(self) -> None:
            import torch

            self.experiment = self.config.experiment or self.experiment
            trainer = self.config.trainer
            trainer.accelerator = _accelerator(trainer.accelerator)
            self.resume_path = _resume_path(self.config.ckpt_path, trainer.default_root_dir, self.experiment)
            on_cpu = trainer.accelerator == "cpu"
            if trainer.deterministic is None and on_cpu:
                trainer.deterministic = True  # float additions in a fixed order: same seed, same digits
                # a debugging aid that costs time
                setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
            _set_threads(on_cpu)
            _no_progress_bars()

        def instantiate_trainer(self, **kwargs: Any) -> Trainer:
            given: Namespace = self.config_init.trainer
            self._settle_folder(given)
            given.callbacks = _callbacks(given.callbacks)
            if given.logger is None or given.logger is True:
                given.logger = _mlflow_logger(self.experiment, self.config.tracking_uri, given.default_root_dir)
            return super().instantiate_trainer(**kwargs)

        def _settle_folder(self, given: Namespace) -> None:
            if given.default_root_dir is None:
                resumed = self.resume_path if self.config.ckpt_path == "last" else None
                given.default_root_dir = str(Path(resumed).parents[1] if resumed else new_folder(self.experiment))
            self.config.trainer.default_root_dir = str(given.default_root_dir)

    return CommandLine


def known_keys(parser: Any) -> list[str]:
    """All keys of the settings, dotted, without ``init_args``."""
    import inspect

    from lightning_mem1.datamodule import WebShopData
    from lightning_mem1.qa_data import QAData

    keys = list(flat(parser.get_defaults().as_dict()))
    keys += [f"data.{name}" for kind in (WebShopData, QAData) for name in inspect.signature(kind).parameters]
    return sorted({key.replace(".init_args", "") for key in keys} | {"model", "data", "trainer"})


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: ``{"model": {"lr": 1}}`` -> ``{"model.lr": 1}``."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def new_folder(experiment: str, runs: str | Path = "runs") -> Path:
    """Make ``runs/<experiment>/<number>``, the next free number; further ranks take the first one's."""
    if "LOCAL_RANK" in os.environ and RUN_FOLDER in os.environ:
        return Path(os.environ[RUN_FOLDER])
    number = 0
    while True:
        folder = Path(runs) / experiment / str(number)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            continue
        os.environ[RUN_FOLDER] = str(folder)
        return folder


def _resume_path(given: str | None, root: str | None, experiment: str) -> str | None:
    """The checkpoint to go on from, checked: it must load, and without running anything in it."""
    if given is None:
        return None
    path = Path(given)
    if given == "last":
        folder = Path(root) if root else Path("runs") / experiment
        found = sorted(folder.glob("**/checkpoints/last.ckpt"), key=lambda p: p.stat().st_mtime)
        if not found:
            raise FileNotFoundError(
                f"no checkpoint to go on from: expected one under '{folder}', got none; leave --ckpt_path out"
            )
        path = found[-1]
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: expected a file, got '{path}'; set --ckpt_path")
    _check_checkpoint(path)
    return str(path)


def _check_checkpoint(path: Path) -> None:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile and pickle each raise their own kinds
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"corrupt checkpoint: expected a whole file that this package wrote, got '{path}' ({reason}); "
            "set --ckpt_path to another one, e.g. checkpoints/best.ckpt"
        ) from error
    if not isinstance(content, dict) or "lightning_mem1" not in content:
        raise ValueError(f"not a checkpoint of lightning_mem1: '{path}'; set --ckpt_path to a file that it wrote")


def _callbacks(given: Any) -> list[Any]:
    """The callbacks of every run, in the order they need, with the ones given in place of or after them."""
    from lightning_mem1 import callbacks as ours

    given = list(given) if isinstance(given, list | tuple) else [given] if given else []
    defaults = (
        ours.RolloutCallback,
        ours.RewardCallback,
        ours.AnswerCallback,
        ours.MemoryUsageCallback,
        ours.TranscriptCallback,
        ours.ProgressCallback,
        ours.RLCheckpoint,
    )
    chosen = [next((g for g in given if isinstance(g, kind)), None) or kind() for kind in defaults]
    return [*chosen, *(g for g in given if g not in chosen)]


def _mlflow_logger(experiment: str, tracking_uri: str, folder: str | Path) -> Any:
    from lightning.pytorch.loggers import MLFlowLogger

    run_name = Path(folder).name
    return MLFlowLogger(experiment_name=experiment, run_name=f"{experiment}/{run_name}", tracking_uri=tracking_uri)


def _no_progress_bars() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def _accelerator(given: Any) -> Any:
    """``"auto"`` is CUDA or the CPU: Lightning's would take Apple's GPU, which lacks the float64 of sampling."""
    import torch

    if given == "mps":
        raise ValueError("trainer.accelerator cannot be used: expected auto, cpu or cuda, got 'mps'; set it to cpu")
    if given != "auto":
        return given
    return "cuda" if torch.cuda.is_available() else "cpu"


def _set_threads(on_cpu: bool) -> None:
    """One thread per physical core, unless the environment says otherwise."""
    if on_cpu and "OMP_NUM_THREADS" not in os.environ and hasattr(os, "sched_getaffinity"):
        import torch

        torch.set_num_threads(len({_siblings(cpu) for cpu in os.sched_getaffinity(0)}))


def _siblings(cpu: int) -> str:
    """Names the hyper-threads that share a physical core with this one."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return path.read_text() if path.is_file() else str(cpu)


def _with_config_option(argv: list[str]) -> tuple[list[str], str | None]:
    """Turn a leading ``CONFIG`` into ``--config CONFIG``; also returns the config's path, None without one."""
    if argv and not argv[0].startswith("-"):
        argv = ["--config", *argv]
    for number, argument in enumerate(argv):
        if argument in ("--config", "-c") and number + 1 < len(argv):
            return argv, argv[number + 1]
        if argument.startswith("--config="):
            return argv, argument.removeprefix("--config=")
    return argv, None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what other libraries say about themselves; warnings and errors still come through."""
    import lightning.pytorch  # noqa: F401  (sets levels of its own when first imported)

    names = ("lightning.pytorch", "lightning.fabric", "lightning", "alembic", "mlflow", "bitsandbytes")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)  # a fresh MLflow store configures loggers of its own and tells of each table
    with warnings.catch_warnings():
        for message in QUIET:
            warnings.filterwarnings("ignore", f"(?s){message}")
        try:
            yield
        finally:
            logging.disable(disabled)
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _restored_interrupts() -> Iterator[None]:
    """Lightning ignores Ctrl-C from the first one on; give the handler back when done."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, handler)


if __name__ == "__main__":
    sys.exit(main())
