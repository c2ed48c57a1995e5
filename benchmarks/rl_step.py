"""A whole rl_step beside TRL's: collecting episodes of the shop and learning from them.

    pip install trl==1.16.0
    OMP_NUM_THREADS=1 python benchmarks/rl_step.py --output benchmarks/rl_step.json

Both train the same policy (LoRA as in experiments/webshop.yaml) by GRPO on `--tasks` tasks x 8 episodes a step, at most
`--turns` turns, with the sampling settings of the experiment. TRL's `GRPOTrainer` gets a `rollout_func` that plays the
episodes with transformers' padded `generate` in the full history, which is what its trainer takes: one growing row per
episode, replies masked. Here `fit` plays in memory mode `mem1`, where some episodes end sooner: `times_trl_by_turns` is
the ratio for as many turns. The first step of both is left out. Neither reports to MLflow; `tracked` is this package's
step with its MLflow run, metrics and traces, as it is by default.
The difference is that of two set-ups, engine, context and trainer together; no single part of it is isolated.
"""

from __future__ import annotations

import csv
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish
from engine_speed import EXPERIMENTS, GROUP, Padded

from lightning_mem1.environments.webshop.tasks import ShopTasks
from lightning_mem1.policy.loading import resolve
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import Trajectory

EXPERIMENT = EXPERIMENTS / "webshop.yaml"
PARTS = 8  # into which TRL's step is cut, as the token budget does here
TOLERANCE = 0.2
STEP = re.compile(r"^step\s+\d+/\d+ ")
UNTRACKED = (
    "--trainer.logger.class_path",
    "lightning.pytorch.loggers.CSVLogger",
    "--trainer.logger.init_args.save_dir",
)


def times(
    command: Sequence[str], folder: str, now: Callable[[int], float], environment: Mapping[str, str] | None = None
) -> list[float]:
    """When each rl_step of a `fit` ended, by the lines that it prints.

    Args:
        command: Runs it.
        folder: Where it runs.
        now: The time, given the number of its process.
        environment: Its variables; None for those of this process.
    """
    told, ended = Path(folder) / "stderr", []
    with (
        open(told, "w") as errors,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if STEP.match(line):
                ended.append(now(process.pid))
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{told.read_text()[-2000:]}")
    return ended


def ours(steps: int, tasks: int, turns: int, tracked: bool) -> dict[str, float]:
    """Seconds per rl_step of the experiment's own command, without validation, by the lines that it prints."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lightning_mem1.fit", str(EXPERIMENT), "--data.num_rl_steps", str(steps)]
        command += ["--trainer.default_root_dir", folder, "--trainer.limit_val_batches", "0"]
        command += ["--data.tasks_per_step", str(tasks), "--data.max_turns", str(turns)]
        command += [] if tracked else [*UNTRACKED, folder]
        ended = times(command, folder, lambda _: time.perf_counter())
        found = {"seconds_per_rl_step": (ended[-1] - ended[0]) / (len(ended) - 1)}
        for path in Path(folder).glob("**/metrics.csv"):
            with open(path) as lines:
                played = [float(row["rollout/turns"]) for row in csv.DictReader(lines) if row["rollout/turns"]]
            found["turns_per_episode"] = statistics.fmean(played[1:])
    return found


def one_row(trajectory: Trajectory) -> tuple[list[int], list[int], list[float]]:
    """A trajectory as TRL wants it: completion ids, 1 on what the policy wrote, log-probabilities."""
    ids, mask = [], []
    for turn in trajectory.turns:
        ids += [*turn.action_ids, *turn.information_ids]
        mask += [1] * len(turn.action_ids) + [0] * len(turn.information_ids)
    return ids, mask, [0.0] * len(ids)


def trl(steps: int, num_tasks: int, max_turns: int) -> dict[str, float]:
    """Seconds per step of TRL's GRPOTrainer."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import GRPOConfig, GRPOTrainer

    config = yaml.safe_load(EXPERIMENT.read_text())
    settings = RolloutSettings(**config["model"]["rollout"])
    source = ShopTasks(results_per_page=config["data"]["init_args"]["results_per_page"], max_turns=max_turns)
    tasks = {task.prompt: task for task in (source.task("train", i) for i in range(num_tasks * (steps + 1)))}
    engine, spent, turns = Padded("bundled", settings), [], []

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        engine.model = trainer.model
        trainer.model.eval()
        chosen = [tasks[prompt] for prompt in prompts]
        episodes = [Episode(task, source.env(task), i // GROUP, seed=i) for i, task in enumerate(chosen)]
        with torch.no_grad():
            found = collect(episodes, engine, trainer.processing_class, settings, "full")
        trainer.model.train()
        turns.append(statistics.fmean(len(each.turns) for each in found))
        rows = [one_row(each) for each in found]
        return {
            "prompt_ids": [list(each.prompt_ids) for each in found],
            "completion_ids": [row[0] for row in rows],
            "env_mask": [row[1] for row in rows],
            "logprobs": None,
            "earned": [each.reward for each in found],
        }

    class Timed(GRPOTrainer):  # type: ignore[misc]
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            loss = super().training_step(*args, **kwargs)
            spent.append(time.perf_counter() - begun)
            return loss

    lora = config["model"]["lora"]
    with tempfile.TemporaryDirectory() as folder:
        trainer = Timed(
            model=resolve("bundled"),
            reward_funcs=lambda earned, **_: earned,
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in tasks]),
            rollout_func=rollout,
            peft_config=LoraConfig(
                r=lora["r"], lora_alpha=lora["alpha"], target_modules=lora["target_modules"], task_type="CAUSAL_LM"
            ),
            args=GRPOConfig(
                output_dir=folder,
                model_init_kwargs={"dtype": "float32"},  # the weights are stored as float16
                per_device_train_batch_size=num_tasks * GROUP // PARTS,
                gradient_accumulation_steps=PARTS,
                num_generations=GROUP,
                max_completion_length=4096,
                learning_rate=config["model"]["lr"],
                temperature=settings.temperature,
                beta=0.0,
                max_steps=steps,
                report_to=[],
                save_strategy="no",
                use_cpu=not torch.cuda.is_available(),
                bf16=False,
                gradient_checkpointing=False,
                disable_tqdm=True,
            ),
        )
        begun = time.perf_counter()
        trainer.train()
    whole = [sum(spent[i : i + PARTS]) for i in range(0, len(spent), PARTS)]
    return {
        "seconds_per_rl_step": statistics.fmean(whole[1:]),
        "turns_per_episode": statistics.fmean(turns[1:]),
        "seconds": time.perf_counter() - begun,
    }


def ratios(found: dict[str, Any]) -> Ratios:
    """How many times as fast as TRL, for the same number of tasks and turns."""
    return Ratios(higher={f"times_trl, {found['tasks']} tasks, {found['turns']} turns": found["times_trl"]})


def main() -> int:
    """Measure both, print the ratio, write, check."""
    parser = arguments("Compare a whole rl_step with TRL's.")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=2, help="tasks of an rl_step, 8 episodes each")
    parser.add_argument("--turns", type=int, default=4, help="most turns of an episode")
    options = parser.parse_args()
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    size = (options.steps, options.tasks, options.turns)
    found = {"lightning_mem1": ours(*size, tracked=False), "trl": trl(*size), "tracked": ours(*size, tracked=True)}
    here, there = found["lightning_mem1"], found["trl"]
    ratio = there["seconds_per_rl_step"] / here["seconds_per_rl_step"]
    by_turns = ratio * here["turns_per_episode"] / there["turns_per_episode"]
    for name, one in found.items():
        print(f"{name}: {one['seconds_per_rl_step']:.1f} s per rl_step")
    print(f"{ratio:.2f} times as fast as TRL, {by_turns:.2f} times for as many turns")
    about = {"steps": options.steps, "tasks": options.tasks, "turns": options.turns}
    told = {"times_trl": round(ratio, 2), "times_trl_by_turns": round(by_turns, 2)}
    return finish({**about, **found, **told}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
