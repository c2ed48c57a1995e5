"""What a faultless researcher needs: tokens by memory mode and number of objectives, the most that training can reach.

    python experiments/claim/upper_bound.py

The scripted researcher plays the test tasks of experiments/claim/qa.yaml without a mistake; no policy is asked. Its
longest turn says what `rollout.max_new_tokens` has to be, the ratios what can be claimed at all.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parent))

from baseline import integers
from generalization import MEMORY, MODES, NOTATION

from lightning_mem1.context.tags import Tags
from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.environments.qa.encyclopedia.questions import Wording
from lightning_mem1.environments.qa.scripted_researcher.notation import Notation
from lightning_mem1.environments.qa.scripted_researcher.researcher import EXPERT_RESEARCHER
from lightning_mem1.evaluation.measures import measures
from lightning_mem1.evaluation.view import View
from lightning_mem1.policy.loading import BUNDLED, load_tokenizer
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.types import Trajectory
from lightning_mem1.warmstart.demonstrations import qa_play
from lightning_mem1.warmstart.settings import DemonstrationSettings, QADemonstrations, Stage, WarmStart


def faultless(
    mode: str,
    objectives: int,
    num_tasks: int,
    tokenizer: Any,
    notation: Notation = "next",
    wording: Wording = "topic",
) -> tuple[list[Trajectory], Tags]:
    """Play some test tasks without a mistake, and the names of the blocks."""
    played = QADemonstrations(skill=EXPERT_RESEARCHER, notation=notation, wording=wording)
    config = WarmStart("", memory=mode, data=DemonstrationSettings(qa=played))
    config.rollout.max_new_tokens, config.rollout.max_information_tokens = 1024, 384
    source, settings, writer = qa_play(config, Stage(1, objectives=[objectives], hops=[1]), 0)
    tasks = [source.task("test", index) for index in range(min(num_tasks, source.size("test")))]
    episodes = [Episode(task, source.env(task), group) for group, task in enumerate(tasks)]
    writers = [writer(random.Random(0), each.env, each.task) for each in episodes]
    return collect(episodes, ScriptedEngine(tokenizer, writers), tokenizer, settings, mode), settings.tags


def played(mode: str, objectives: int, num_tasks: int) -> list[dict[str, float]]:
    """The measures of some tasks, and ``longest_turn``, in tokens."""
    tokenizer = load_tokenizer(str(BUNDLED))
    memory = MEMORY[mode]
    found, tags = faultless(memory, objectives, num_tasks, tokenizer, NOTATION.get(mode, "next"))
    return [measures(each, View(tokenizer.decode, tags, memory)) | {"longest_turn": _longest(each)} for each in found]


def _longest(trajectory: Trajectory) -> float:
    return float(max(len(turn.action_ids) for turn in trajectory.turns))


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="Tokens of a faultless researcher.")
    parser.add_argument("--objectives", type=integers, default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--tasks", type=int, default=20)
    options = parser.parse_args(argv)
    print(
        "| objectives | memory | EM, sum | longest turn | peak tokens | dependency, 1e6 | over mem1: peak, dependency |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for k in options.objectives:
        base: tuple[float, float] | None = None
        for mode in MODES:
            rows = played(mode, k, options.tasks)
            em, peak, pairs = (fmean(row[name] for row in rows) for name in ("em", "peak_tokens", "dependency"))
            base = base or (peak, pairs)
            longest = max(row["longest_turn"] for row in rows)
            cells = f"{k} | {mode} | {em:.2f} | {longest:.0f} | {peak:,.0f} | {pairs / 1e6:.3f}"
            print(f"| {cells} | {peak / base[0]:.2f}, {pairs / base[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
