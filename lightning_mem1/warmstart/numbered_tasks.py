"""Training tasks that are numbered from anywhere on, some of them behind a list of answers to smaller numbers.

A policy cloned from them knows which number follows 11 and keeps a list of 12 answers without a task of 12 questions.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from lightning_mem1.environments.qa.tasks import EncyclopediaTasks, ask
from lightning_mem1.types import Objective, Split, Task

REPEATED = 0.3  # part of the entries of a list to carry on that are drawn again from it


class NumberedTasks(EncyclopediaTasks):
    """Training tasks, half of them numbered from a number between 1 and `largest_first` on, given in ``data["first"]``.

    The other half begin at 1, as tasks do that are scored: a reply numbers its passages 1, 2, 3 as well. A part of the
    first half, `carried`, names in ``data["carried"]`` answers to the smaller numbers; every other prompt of these has
    their questions too.
    """

    def __init__(
        self,
        largest_first: int,
        carried: float,
        seed: int,
        num_passages: int,
        hops: Sequence[int],
        **settings: Any,
    ) -> None:
        super().__init__(seed, num_passages, hops, **settings)
        self.largest_first, self.carried, self.seed = largest_first, carried, seed

    @cached_property
    def by_answer(self) -> dict[str, list[Objective]]:
        """Answer -> the questions that have it, of those that the lists that are carried on may answer."""
        found: dict[str, list[Objective]] = {}
        for question in self.composers["train"].sources["encyclopedia"]:
            if not question.needs:
                found.setdefault(question.answers[0].lower(), []).append(Objective(question.text, question.answers))
        return found

    def task_of(self, split: Split, index: int, k: int) -> Task:
        task = super().task_of(split, index, k)
        rng = random.Random(f"{self.seed}/{task.id}")
        first = rng.choice((1, rng.randint(1, self.largest_first)))
        if split != "train" or first == 1:
            return task
        objectives = tuple(replace(each, question=_shifted(each.question, first)) for each in task.objectives)
        data: dict[str, Any] = {**task.data, "first": first}
        prompt = ask(objectives, first=first)
        if rng.random() < self.carried:
            answers = self._earlier(rng, first - 1, objectives)
            data["carried"] = " ".join(f"{number} {answer}" for number, answer in enumerate(answers, 1))
            earlier = [rng.choice(self.by_answer[answer]) for answer in answers]
            prompt = rng.choice((prompt, ask((*earlier, *objectives))))
        return replace(task, prompt=prompt, objectives=objectives, data=data)

    def _earlier(self, rng: random.Random, number: int, objectives: Sequence[Objective]) -> list[str]:
        """Answers to carry on, many of them twice: who continues behind the first of two alike runs into a loop."""
        due = [each.answers[0].lower() for each in objectives]
        answers = rng.choices(list(self.by_answer), k=number)
        again = [*answers, *(answer for answer in due if answer in self.by_answer)]
        return [rng.choice(again) if rng.random() < REPEATED else answer for answer in answers]


def _shifted(question: str, first: int) -> str:
    """A question that names an earlier one, where the first one's number is `first`."""
    return re.sub(
        r"(?<=^answer )\d+|(?<=the answer to question )\d+", lambda found: str(int(found[0]) + first - 1), question
    )
