"""The scripted reader of `real_weights.py`, which knows the answers, and the dataset of what it plays."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch.utils.data import Dataset

from lightning_mem1.context.tags import Tags
from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.environments.qa.question import Question
from lightning_mem1.environments.qa.tasks import QATasks, ask
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.types import Objective, Task, Trajectory
from lightning_mem1.warmstart.demonstrations import leave_out_first_state
from lightning_mem1.warmstart.settings import WarmStart

# turns beyond one for each question; the warm start plays with one to three, so that none of them says: answer
SPARE = 2
LEAST = 3  # characters of an answer that is looked for in a passage: "no" stands everywhere


class Reader:
    """Writes turns like ``<think>1 Rush; 2 Spurs | 3 who wrote it?</think><search>who wrote it?</search>``.

    Args:
        task: Its first question has the number 1, or ``data["first"]`` behind the answers of ``data["carried"]``.
        tags: Names of the blocks.
        numbered: Whether answers are given behind their numbers, as the state has them.
        restated: Whether every turn has all answers, as where the turns before are not seen, or each answer is in
            the turn that found it alone: ``<think>2 Spurs | 3 who ...``. The first turn has those of
            ``data["carried"]`` in any case.
    """

    def __init__(self, task: Task, tags: Tags, numbered: bool = False, restated: bool = True) -> None:
        self.objectives, self.tags, self.numbered, self.restated = task.objectives, tags, numbered, restated
        self.earlier: Sequence[str] = task.data.get("carried", ())
        self.found: list[str] = []
        self.begun = False

    def __call__(self, context: str) -> str:
        if self.begun:
            accepted = self.objectives[len(self.found)].answers
            self.found.append(worded(context.rpartition(f"<{self.tags.information}>")[2], accepted) or accepted[0])
        self.begun, due = True, len(self.found)
        known = [*self.earlier, *self.found]
        entries = [f"{number} {answer}" for number, answer in enumerate(known, 1)]
        noted = entries if self.restated or not due else entries[-1:]
        listed, (search, answer) = "; ".join(entries), self.tags.names
        state = f"{'; '.join(noted)} | {len(known) + 1}".strip()
        if due == len(self.objectives):
            return f"<think>{state}</think><{answer}>{listed if self.numbered else '; '.join(known)}</{answer}>"
        question = self.objectives[due].question
        return f"<think>{state} {question}</think><{search}>{question}</{search}>"


def carried_on(task: Task, first: int, others: Sequence[Question], rng: random.Random) -> Task:
    """The task numbered from `first` on, behind a list of answers to as many other questions; their questions are in
    every other prompt. So a policy keeps a list of 12 without a task of 12."""
    earlier = [Objective(each.text, each.answers) for each in rng.sample(others, first - 1)]
    prompt = ask([*earlier, *task.objectives]) if rng.random() < 0.5 else ask(task.objectives, first=first)
    carried = [each.answers[0].replace(";", "") for each in earlier]
    return replace(task, prompt=prompt, data={**task.data, "first": first, "carried": carried})


def worded(text: str, answers: Sequence[str]) -> str | None:
    """An accepted answer as it is in a text, None when none of them does."""
    patterns = (rf"(?<!\w){re.escape(each)}(?!\w)" for each in answers if len(each) >= LEAST and each.lower() != "yes")
    found = (re.search(pattern, text, re.IGNORECASE) for pattern in patterns)
    return next((each[0].replace(";", "") for each in found if each), None)


class Cloned(Dataset[list[Trajectory]]):
    """Step -> trajectories of the reader; what it plays follows from the step alone.

    Every other task is numbered from a number between 2 and `largest_first` on, behind a list of answers.
    """

    def __init__(
        self,
        source: QATasks,
        tokenizer: Any,
        config: WarmStart,
        episodes: int,
        largest_first: int = 1,
        restated: bool = True,
    ) -> None:
        self.source, self.tokenizer, self.config, self.episodes = source, tokenizer, config, episodes
        self.largest_first, self.restated = largest_first, restated
        self.others = [each for those in source.composers["train"].sources.values() for each in those]

    def __len__(self) -> int:
        return self.config.stages[0].steps

    def __getitem__(self, step: int) -> list[Trajectory]:
        rng, numbers, settings = random.Random(step), self.config.stages[0].objectives, self.config.rollout
        played = []
        for group in range(self.episodes):
            k = numbers[group % len(numbers)]
            task = self.source.task_of("train", rng.randrange(self.source.sized("train", k)), k)
            task = replace(task, max_turns=k + rng.randint(1, SPARE + 1))
            if self.largest_first > 1 and rng.random() < 0.5:
                task = carried_on(task, rng.randint(2, self.largest_first), self.others, rng)
            played.append(Episode(task, self.source.env(task), group))
        numbered = self.source.variant == "numbered"
        readers = [Reader(each.task, settings.tags, numbered, self.restated) for each in played]
        found = collect(played, ScriptedEngine(self.tokenizer, readers), self.tokenizer, settings, self.config.mode)
        for each in found:
            if "carried" in each.task.data:
                leave_out_first_state(each, self.config.mode.staged)
        return found
