"""The training command in real processes that die by kill -9 and go on with ``--ckpt_path last``.

    python tests/killed_runs.py CONFIG STORE NUM_KILLS SEED

One process imports everything, each attempt is a fork of it, so that an attempt takes a second and not twenty. A kill
comes at a random call of a phase or a random passage of a point (nothing depends on how fast the machine is), or at a
random moment by the clock. Prints one JSON line per run: its experiment, where each of its attempts was killed, and the
MLflow run and rl_step of the checkpoint that was there after it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import mlflow  # noqa: F401  (here and not in every fork)
import peft  # noqa: F401
import torch
from lightning.pytorch.cli import LightningCLI  # noqa: F401
from transformers import AutoTokenizer, Qwen2ForCausalLM  # noqa: F401

from lightning_mem1 import callbacks
from lightning_mem1.cli import (
    fit,
    lightning_cli,  # noqa: F401  (here and not in every fork)
)
from lightning_mem1.io import atomic_files  # noqa: F401
from lightning_mem1.training.learner import Learner
from lightning_mem1.training.module import Mem1Module

PHASES: dict[str, CodeType] = {  # killed at a random call inside
    "collection": callbacks.RolloutCallback.on_train_batch_start.__code__,
    "update": Mem1Module.training_step.__code__,
    "checkpoint": callbacks.RLCheckpoint._save_last.__code__,
    "validation": callbacks.RolloutCallback._validate.__code__,
}
POINTS: dict[str, tuple[str, CodeType, str]] = {  # killed at a random one of these: what happens where, name called
    "after an optimizer step": ("return", Learner.step.__code__, ""),
    "half a file": ("c_call", atomic_files.write_atomic.__code__, "write"),
    "before the rename": ("c_call", atomic_files.write_atomic.__code__, "replace"),
}
PLACES = {code for _, code, _ in POINTS.values()}
BY_THE_CLOCK = "by the clock"
MOMENTS = ["half a file", "collection", "after an optimizer step", "before the rename", "update", "checkpoint"]
MOMENTS += ["validation", BY_THE_CLOCK]


class Calls:
    """Counts calls (of Python and C functions) inside the phases and passages of the points; kills at one of them."""

    def __init__(self, moment: str | None = None, number: int = 0) -> None:
        self.counts, self.depth = dict.fromkeys([*PHASES, *POINTS], 0), dict.fromkeys(PHASES, 0)
        self.names = {code: name for name, code in PHASES.items()}
        self.moment, self.number, self.inside = moment, number, 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code  # most calls are of no interest, and this stands between all of them
        if code in self.names and event in ("call", "return"):
            self.inside += 1 if event == "call" else -1
            self.depth[self.names[code]] += 1 if event == "call" else -1
        if self.inside:
            for inside, depth in self.depth.items():
                if depth:
                    self._count(inside, frame)
        if code in PLACES:
            for point, (kind, place, called) in POINTS.items():
                if (event, code) == (kind, place) and called in ("", getattr(argument, "__name__", "")):
                    self._count(point, frame)

    def _count(self, moment: str, frame: FrameType) -> None:
        self.counts[moment] += 1
        if moment == self.moment and self.counts[moment] == self.number:
            if moment == "half a file":
                file, content = frame.f_locals["file"], frame.f_locals["content"]
                os.write(file.fileno(), content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)


def attempt(argv: list[str], calls: Calls | None, seconds: float | None = None) -> bool:
    """Train in a process of its own; returns whether it came to its end."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.setprofile(calls)
            status = fit.main(argv)
            sys.setprofile(None)
            if calls and not calls.moment:
                Path("counts.json").write_text(json.dumps(calls.counts))
        finally:
            os._exit(status)
    until = time.monotonic() + seconds if seconds is not None else float("inf")
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    code = os.waitstatus_to_exitcode(ended[1])
    assert code in (0, -signal.SIGKILL), f"exit code {code} of {argv}"
    return code == 0


def main(config: str, store: str, num_kills: int, seed: int) -> None:
    """Train once without a kill, then again and again until `num_kills` have been survived."""
    rng = random.Random(seed)
    arguments = [config, "--tracking_uri", store]
    started = time.monotonic()
    assert attempt([*arguments, "--experiment", "whole"], Calls())
    seconds = time.monotonic() - started
    counts = json.loads(Path("counts.json").read_text())
    number = survived = 0
    while survived < num_kills:
        experiment, kills, kept, done = f"killed{number}", [], [], False
        while not done:
            goes_on = bool(kept and kept[-1])
            argv = [*arguments, "--experiment", experiment, *(["--ckpt_path", "last"] if goes_on else [])]
            told = survived + len(kills)
            moment = MOMENTS[told % len(MOMENTS)] if told < num_kills else None
            # a new run is killed late, mostly after its first checkpoint; one that goes on has less before it
            part = rng.uniform(0, 1 / 2) if goes_on else rng.uniform(1 / 3, 1)
            if moment == BY_THE_CLOCK:
                done = attempt(argv, Calls(moment), part * seconds)  # counted too: `seconds` is of a run that was
            else:
                done = attempt(argv, Calls(moment, 1 + int(part * counts[moment])) if moment else None)
            kills += [] if done else [moment]
            kept.append(newest(experiment))
        print(json.dumps({"experiment": experiment, "kills": kills, "kept": kept}), flush=True)
        number, survived = number + 1, survived + len(kills)


def newest(experiment: str) -> list[Any]:
    """MLflow run and rl_step of an experiment's only checkpoint that can be gone on with; [] when there is none."""
    found = [torch.load(path, weights_only=True) for path in Path("runs", experiment).glob("*/checkpoints/last.ckpt")]
    return [[each["mlflow"]["run_id"], each["lightning_mem1"]["rl_step"]] for each in found][0] if found else []


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
