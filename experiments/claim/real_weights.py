"""Real pretrained weights: warm start, RL on two questions, and tasks of 1 to 16 questions, on one GPU.

    python experiments/claim/real_weights.py --gguf MODEL.gguf --data FOLDER            # one stage after the other
    run="python experiments/claim/real_weights.py --policy HF_FOLDER --data FOLDER"     # or at once
    $run --stages questions &
    for mode in mem1 full react; do $run --stages warm,rl,after,before --modes $mode & done

The modes are claim.py's: `react` sees the full history as `full` does, and restates nothing in it. A stage that is done
has a ``<stage>.json`` and is not repeated. Processes may share the output folder, as above: a stage waits for what
another process has to do first. The scripted reader of the warm start knows the answers: it asks every question as it
stands and copies the answer out of the reply, of questions only where one search finds it. Without ``--data`` the
generated encyclopedia is asked about. What is compared: experiments/claim/log.md.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parent))

from baseline import hardware, integers, some_of
from generalization import MEMORY, NOTATION
from scripted_reader import SPARE, Cloned, worded

from lightning_mem1 import callbacks
from lightning_mem1.cli import startup
from lightning_mem1.cli.evaluate import record
from lightning_mem1.cli.lightning_cli import PlayingCommandLine
from lightning_mem1.environments.qa.question import Question
from lightning_mem1.environments.qa.tasks import QATasks
from lightning_mem1.evaluation.measures import MEASURES, Measure
from lightning_mem1.evaluation.player import Player
from lightning_mem1.evaluation.published import published
from lightning_mem1.evaluation.report import plots
from lightning_mem1.evaluation.tables import as_json, row
from lightning_mem1.evaluation.task_sets import task_sets
from lightning_mem1.evaluation.transcript import readable, transcript
from lightning_mem1.io.atomic_files import write_atomic
from lightning_mem1.training.trainer import TRAINER_DEFAULTS
from lightning_mem1.types import StopReason, Task, Trajectory, Turn
from lightning_mem1.warmstart.model import save
from lightning_mem1.warmstart.settings import Architecture, Optimisation, Stage, WarmStart
from lightning_mem1.warmstart.train import clone

ROOT = Path(__file__).parents[2]
MODES = ("mem1", "full", "react")  # those of claim.py that the scripted reader can write
BY_MODE = ("warm", "rl", "after", "before")  # stages of each mode, `warm_mem1`
STAGES = ("weights", "questions", *BY_MODE)
COLUMNS = {"before": "warm start", "after": "after RL"}
SHOWN = (
    "em", "em_mean", "f1", "peak_tokens", "peak_tokens_without_prompt", "dependency", "turns", "seconds"
)  # fmt: skip
SHORT = 4  # objectives: longer tasks are played apart, in fewer and longer slots


class Run:
    """The stages, each a method: that of a mode has the mode as its argument.

    Args:
        options: The command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.folder = options, Path(options.output)
        self.start = options.policy or str(self.folder / "policies" / "pretrained")

    def weights(self) -> dict[str, Any]:
        """A folder with the weights of the GGUF file, dequantised."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        file = Path(self.options.gguf)
        where: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False}
        model = AutoModelForCausalLM.from_pretrained(str(file.parent), **where, dtype=torch.float32)
        model.hf_quantizer = None
        del model.config.quantization_config
        model.save_pretrained(self.start)
        AutoTokenizer.from_pretrained(str(file.parent), **where).save_pretrained(self.start)
        return {}

    def questions(self) -> dict[str, Any]:
        """The ids of the training questions whose answer one search finds, as the policy would see the reply."""
        cli = self._opened(self.start)
        source, encoder = cli.datamodule.source, cli.model.encoder

        def shown(question: Question) -> str:
            found = source.retriever.search([question.text], source.top_k)[0]
            reply = source.env(source.task("train", 0)).write(found)
            return encoder.decode(encoder.information_ids(reply, 10))

        asked = [each for those in source.composers["train"].sources.values() for each in those if not each.needs]
        return {"asked": len(asked), "found": [each.id for each in asked if worded(shown(each), each.answers)]}

    def warm(self, mode: str) -> dict[str, Any]:
        """Cloning of the scripted reader, every weight."""
        options, found = self.options, set(self._known("questions")["found"])
        cli = self._opened(self.start, "--model.lora", "null")
        source, policy = cli.datamodule.source, cli.model.policy
        kept = {n: [q for q in those if q.id in found] for n, those in source.composers["train"].sources.items()}
        asked = QATasks(
            {"train": kept, "val": {}, "test": {}}, source.retriever, top_k=source.top_k, variant=source.variant
        )
        config = WarmStart(
            output=str(self._policy(mode)),
            model=Architecture(induction_start=False),  # all layers alike
            stages=[Stage(options.warm_steps, objectives=options.warm_objectives)],
            optim=Optimisation(
                options.warm_lr,
                warmup_steps=20,
                max_tokens=options.warm_tokens,
                max_seconds=options.warm_seconds,
            ),
            memory=MEMORY[mode],
            rollout=cli.model.rollout_settings,
            save_every=10**9,
            accelerator="cpu" if cli.config.trainer.accelerator == "cpu" else "cuda",
            precision=options.warm_precision,
            num_workers=options.workers,
        )
        restated = NOTATION.get(mode) != "react"
        data = Cloned(asked, policy.tokenizer, config, options.warm_episodes, options.warm_first, restated)
        begun = time.perf_counter()
        module = clone(policy, config, data)
        save(policy, config.output)
        told = {"steps": module.global_step, "trajectories": module.num_trajectories, "tokens": module.num_tokens}
        return told | {"train_seconds": round(time.perf_counter() - begun, 1)}

    def rl(self, mode: str) -> dict[str, Any]:
        """LoRA and GRPO on two questions, from the warm start of the mode."""
        self._known(f"warm_{mode}")
        more = ["--model.memory", MEMORY[mode], "--data.turns_per_task", str(2 + SPARE), *self.options.rl]
        cli = self._opened(str(self._policy(mode)), *more)
        ours = (
            callbacks.RolloutCallback,
            callbacks.MetricsCallback,
            callbacks.ProgressCallback,
            callbacks.RLCheckpoint,
        )
        last = self._last(mode)
        trainer = L.Trainer(
            **TRAINER_DEFAULTS | {"val_check_interval": self.options.val_every},
            default_root_dir=str(self.folder / "rl" / mode),
            max_time={"seconds": self.options.rl_seconds},
            logger=CSVLogger(str(self.folder / "rl"), mode, flush_logs_every_n_steps=1),
            callbacks=[each() for each in ours],
        )
        trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=last if last.exists() else None)
        return {"rl_steps": cli.model.rl_step}

    def before(self, mode: str) -> dict[str, Any]:
        """The warm start, played."""
        return self._evaluated(mode)

    def after(self, mode: str) -> dict[str, Any]:
        """The same after RL."""
        self._known(f"rl_{mode}")
        return self._evaluated(mode, "--ckpt_path", str(self._last(mode)))

    def _evaluated(self, mode: str, *more: str) -> dict[str, Any]:
        """Greedy episodes of all numbers of objectives at once, the long ones apart."""
        self._known(f"warm_{mode}")
        options = self.options
        cli = self._opened(str(self._policy(mode)), "--model.memory", MEMORY[mode], *options.evaluated, *more)
        player = Player(cli.loaded_module(), cli.datamodule.source, MEMORY[mode])
        deadline = time.perf_counter() + options.evaluate_seconds
        rows, cut, transcripts = [], Counter[int](), []
        short, long = ([k for k in options.objectives if (k > SHORT) == longer] for longer in (False, True))
        for numbers in filter(None, (short, long)):
            asked = {
                (each.objectives, index): replace(task, max_turns=each.objectives + SPARE)
                for each in task_sets(cli.datamodule.source, numbers, "test", options.tasks)
                for index, task in each.tasks().items()
            }
            settings = player.engine_settings(list(asked.values()))
            played, unfinished = play_until(deadline, player, list(asked.values()), player.engine(settings))
            cut.update(number for place, (number, _) in enumerate(asked) if place in unfinished)
            for number in numbers:
                those = [(k, index, each) for (k, index), each in zip(asked, played, strict=True) if k == number]
                rows.append(row([record(player, *each) for each in those], settings.max_context_tokens))
                shown = (transcript(each, player.module) for *_, each in those[: options.transcripts])
                transcripts += [readable(each) for each in shown]
        found = as_json({}, sorted(rows, key=lambda each: each.objectives), [], [])["rows"]
        return {
            "rows": [each | {"unfinished": cut[each["objectives"]]} for each in found],
            "unfinished": cut.total(),
            "transcripts": transcripts,
        }

    def _opened(self, policy: str, *more: str) -> PlayingCommandLine:
        """Module and data as the config has them, with another policy."""
        given = ["--config", self.options.config, "--model.policy", policy]
        if self.options.data:
            files = Path(self.options.data)
            asked = [str(files / f"{name}.jsonl.gz") for name in ("hotpotqa", "nq_open")]
            given += ["--data.questions", json.dumps(asked), "--data.corpus", str(files / "corpus.jsonl.gz")]
            given += ["--data.index", str(self.folder / "index")]
        opened = startup.opened([*given, *self.options.set, *more])
        cli: PlayingCommandLine = startup.built(PlayingCommandLine, opened)
        return cli

    def _policy(self, mode: str) -> Path:
        return self.folder / "policies" / mode

    def _last(self, mode: str) -> Path:
        return self.folder / "rl" / mode / "checkpoints" / "last.ckpt"

    def _known(self, stage: str) -> dict[str, Any]:
        """What a stage has reported, waiting for the process that does it."""
        path, begun = self.folder / f"{stage}.json", time.perf_counter()
        while not path.exists():
            if time.perf_counter() - begun > self.options.wait_seconds:
                raise FileNotFoundError(f"expected '{path}' from stage {stage}, got none; run it, or wait longer")
            time.sleep(0.2)
        told: dict[str, Any] = json.loads(path.read_text())
        return told

    def do(self, stage: str) -> None:
        """Run a stage that is not done, and write down what came of it."""
        path = self.folder / f"{stage}.json"
        if path.exists():
            return
        begun = time.perf_counter()
        name, *mode = stage.split("_")
        told = getattr(self, name)(*mode)
        told["seconds"] = round(time.perf_counter() - begun, 1)
        write_atomic(path, (json.dumps(told, indent=1) + "\n").encode())
        print(f"{time.strftime('%H:%M:%S')}  {stage}: {told['seconds']} s", flush=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def named(stages: Sequence[str], modes: Sequence[str]) -> list[str]:
    """The stages in their order, those of a mode once for each: ``["questions", "warm_mem1", "warm_full", ...]``."""
    return [name for stage in stages for name in ([f"{stage}_{m}" for m in modes] if stage in BY_MODE else [stage])]


class _Late(Exception):
    pass


def play_until(
    deadline: float, player: Player, tasks: Sequence[Task], engine: Any
) -> tuple[list[Trajectory], set[int]]:
    """Trajectories, and the places of those that a deadline (of `time.perf_counter`) left as they stood, unanswered."""
    played = [Trajectory(task, [], [], StopReason.MAX_TURNS) for task in tasks]
    ended, begun = set(), time.perf_counter()

    def on_turn(trajectory: Trajectory, turn: Turn) -> None:
        played[trajectory.group] = trajectory
        if time.perf_counter() > deadline:
            raise _Late

    def on_end(place: int, trajectory: Trajectory) -> None:
        played[place] = trajectory
        ended.add(place)

    with suppress(_Late):
        player.play(tasks, engine, on_turn, on_end)
    unfinished = set(range(len(tasks))) - ended
    for place in unfinished:
        played[place].seconds = time.perf_counter() - begun
    return played, unfinished


def curve(folder: Path) -> list[dict[str, float]]:
    """Rewards by rl_step: of the episodes that train, and in validation."""
    names = {"step": "rl_step"} | {n: n for n in ("rollout/reward", "val/reward", "memory/peak_tokens_mean")}
    rows = [each for path in sorted(folder.glob("version_*/metrics.csv")) for each in csv.DictReader(path.open())]
    kept = ({ours: float(each[name]) for name, ours in names.items() if each.get(name)} for each in rows)
    return [each for each in kept if len(each) > 1]


def report(folder: Path) -> list[str]:
    """Put together what is done so far: ``results.json``, ``rl.png`` and ``results.md``, whose lines it returns."""
    everything = named(STAGES, MODES)
    done = {stage: json.loads(path.read_text()) for stage in everything if (path := folder / f"{stage}.json").exists()}
    results = {
        stage: {k: v for k, v in told.items() if k not in ("found", "transcripts")} for stage, told in done.items()
    }
    results["rl_curve"] = {mode: rows for mode in MODES if (rows := curve(folder / "rl" / mode))}
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    results["hardware"] = hardware() + gpu
    labels = {measure.name: measure for measure in MEASURES}
    lines = [f"| policy | objectives | tasks | cut by the clock | {' | '.join(labels[name].label for name in SHOWN)} |"]
    lines.append("| --- " * (4 + len(SHOWN)) + "|")
    played = {f"{stage}_{mode}": f"`{mode}`, {name}" for mode in MODES for stage, name in COLUMNS.items()}
    for stage, name in played.items():
        for each in done.get(stage, {}).get("rows", []):
            cells = [cell(each["measures"][shown], labels[shown]) for shown in SHOWN]
            counts = f"{each['objectives']} | {each['num_trajectories']} | {each['unfinished']}"
            lines.append(f"| {name} | {counts} | {' | '.join(cells)} |")
    for k in sorted({each["objectives"] for stage in played for each in done.get(stage, {}).get("rows", [])}):
        for paper in published("qa", k):
            numbers = (getattr(paper, name, None) for name in SHOWN)
            cells = [
                "-" if number is None else f"{number:,.{labels[n].digits}f}"
                for n, number in zip(SHOWN, numbers, strict=True)
            ]
            lines.append(f"| {paper.model} ({paper.source}) | {k} | | | {' | '.join(cells)} |")
    write_atomic(folder / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    if results["rl_curve"]:
        plots.save({"rl": plots.runs(results["rl_curve"])}, folder)
    write_atomic(folder / "results.md", ("\n".join(lines) + "\n").encode())
    return lines


def cell(interval: Mapping[str, float], measure: Measure) -> str:
    """``0.51 [0.42, 0.60]`` in the measure's unit."""
    mean, low, high = (f"{interval[n] / measure.unit:,.{measure.digits}f}" for n in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Real pretrained weights on real questions.")
    add = parser.add_argument
    add("--output", default="runs/real", help="folder of everything")
    add("--stages", type=some_of(STAGES), default=",".join(STAGES), help="which, in this order")
    add("--modes", type=some_of(MODES), default=",".join(MODES), help="memory modes that are compared")
    add("--gguf", help="the pretrained weights as a GGUF file (needs the package gguf)")
    add("--policy", help="the pretrained weights as a folder, in place of --gguf")
    add("--data", help="folder with hotpotqa, nq_open and corpus (.jsonl.gz); left out: the generated encyclopedia")
    add("--config", default=str(ROOT / "experiments" / "claim" / "smollm2.yaml"))
    add("--set", action="append", default=[], help="a setting of the config: --set=--model.lr=1e-4")
    add("--warm_seconds", type=float, default=600, help="of each warm start")
    add(
        "--warm_steps",
        type=int,
        default=2000,
        help="most steps of a warm start; its rate falls with what is gone first",
    )
    add("--warm_episodes", type=int, default=12, help="trajectories of a step")
    add("--warm_objectives", type=integers, default=[1, 2, 4, 6], help="questions per task, by turns")
    add("--warm_first", type=int, default=1, help="largest number that a task of the warm start begins at")
    add("--warm_lr", type=float, default=3e-4)
    add("--warm_precision", default="32-true", help="of the warm start, as Lightning's trainer names it: bf16-mixed")
    add("--warm_tokens", type=int, default=16384, help="most tokens of a forward pass")
    add("--workers", type=int, default=4, help="processes in which the reader plays")
    add("--rl_seconds", type=float, default=600)
    add("--val_every", type=int, default=5, help="rl_steps between validations")
    add("--rl", action="append", default=[], help="the same, of RL alone")
    add("--objectives", type=integers, default=[1, 2, 4, 8, 16])
    add("--tasks", type=int, default=96, help="held-out tasks of each number of objectives, all where there are fewer")
    add("--evaluate_seconds", type=float, default=600, help="of one evaluation; what runs then has no answer")
    add("--evaluated", action="append", default=[], help="the same, of evaluation alone")
    add("--transcripts", type=int, default=3, help="of each number of objectives")
    add("--wait_seconds", type=float, default=600, help="for a stage of another process")
    options = parser.parse_args(argv)
    if options.policy:
        options.stages = [stage for stage in options.stages if stage != "weights"]
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, stage by stage, and report the results."""
    options = parsed(argv)
    torch.set_float32_matmul_precision("high")  # TF32 where there is a GPU: training and rollout alike
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(options)
    with startup.quiet():
        for stage in named(options.stages, options.modes):
            run.do(stage)
            report(folder)
    print("\n".join(report(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
