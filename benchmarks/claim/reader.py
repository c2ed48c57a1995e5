"""The scripted reader of `real_weights.py`, which knows the answers, and the dataset of what it plays."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch.utils.data import Dataset

from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.rollout import Episode, collect
from lightning_mem1.tasks.qa import QATasks
from lightning_mem1.text import Tags
from lightning_mem1.types import Task, Trajectory
from lightning_mem1.warmstart import WarmStart

# turns beyond one for each question; the warm start plays with one to three, so that none of them says: answer
SPARE = 2
LEAST = 3  # characters of an answer that is looked for in a passage: "no" stands everywhere


class Reader:
    """Writes turns like ``<think>1 Rush; 2 Spurs | 3 who wrote it?</think><search>who wrote it?</search>``."""

    def __init__(self, task: Task, tags: Tags) -> None:
        self.objectives, self.tags = task.objectives, tags
        self.found: list[str] = []
        self.begun = False

    def __call__(self, context: str) -> str:
        if self.begun:
            accepted = self.objectives[len(self.found)].answers
            self.found.append(worded(context.rpartition(f"<{self.tags.information}>")[2], accepted) or accepted[0])
        self.begun, due = True, len(self.found)
        listed = "; ".join(f"{number} {answer}" for number, answer in enumerate(self.found, 1))
        state, (search, answer) = f"{listed} | {due + 1}".strip(), self.tags.names
        if due == len(self.objectives):
            return f"<think>{state}</think><{answer}>{'; '.join(self.found)}</{answer}>"
        question = self.objectives[due].question
        return f"<think>{state} {question}</think><{search}>{question}</{search}>"


def worded(text: str, answers: Sequence[str]) -> str | None:
    """An accepted answer as it stands in a text, None when none of them does."""
    patterns = (rf"(?<!\w){re.escape(each)}(?!\w)" for each in answers if len(each) >= LEAST and each.lower() != "yes")
    found = (re.search(pattern, text, re.IGNORECASE) for pattern in patterns)
    return next((each[0].replace(";", "") for each in found if each), None)


class Cloned(Dataset[list[Trajectory]]):
    """Step -> trajectories of the reader; what it plays follows from the step alone."""

    def __init__(self, source: QATasks, tokenizer: Any, config: WarmStart, episodes: int) -> None:
        self.source, self.tokenizer, self.config, self.episodes = source, tokenizer, config, episodes

    def __len__(self) -> int:
        return self.config.stages[0].steps

    def __getitem__(self, step: int) -> list[Trajectory]:
        rng, numbers, settings = random.Random(step), self.config.stages[0].objectives, self.config.rollout
        played = []
        for group in range(self.episodes):
            k = numbers[group % len(numbers)]
            task = self.source.task_of("train", rng.randrange(self.source.sized("train", k)), k)
            task = replace(task, max_turns=k + rng.randint(1, SPARE + 1))
            played.append(Episode(task, self.source.env(task), group))
        engine = ScriptedEngine(self.tokenizer, [Reader(each.task, settings.tags) for each in played])
        return collect(played, engine, self.tokenizer, settings, self.config.memory)
