"""A task that is not one of the package's, with its expert: read where the lantern is, go there, say what it shows."""

from __future__ import annotations

import random

from lightning_mem1 import Env, Objective, StepResult, Task
from lightning_mem1.types import Split

PLACES, SIGNS = ("Attic", "Cellar", "Garden"), ("Moon", "Sun", "Star", "Rain")


class Lantern:
    def __init__(self, place: str, sign: str) -> None:
        self.place, self.sign, self.shown = place, sign, "actions: read[note] go[place] say[sign]"

    def observe(self) -> str:
        return self.shown

    def step(self, action: str) -> StepResult:
        if action == "read[note]":
            self.shown = f"note: look in {self.place}"
        elif action == f"go[{self.place}]":
            self.shown = f"{self.place}: the sign is {self.sign}"
        elif action.startswith("say["):
            right = float(action == f"say[{self.sign}]")
            return StepResult("", right, done=True, info={"success": right})
        else:
            return StepResult("not possible", valid=False)
        return StepResult(self.shown)


class Lanterns:
    def size(self, split: Split) -> int:
        return {"train": 40, "val": 4, "test": 4}[split]

    def task(self, split: Split, index: int) -> Task:
        rng = random.Random(f"{split}/{index}")
        place, sign = rng.choice(PLACES), rng.choice(SIGNS)
        data = {"place": place, "sign": sign}
        return Task(f"lantern/{split}/{index}", "Say the sign.", (Objective("the sign", (sign,)),), 5, data)

    def env(self, task: Task) -> Env:
        return Lantern(task.data["place"], task.data["sign"])


def expert(task: Task, seen: str, memory: str, rng: random.Random) -> tuple[str, str]:
    """Goes by what it sees, and guesses in one of five tasks."""
    last = seen.split()[-1]
    if not memory:
        return "nothing yet", "read[note]"
    if seen.startswith("note"):
        return f"in {last}", f"say[{rng.choice(SIGNS)}]" if rng.random() < 0.2 else f"go[{last}]"
    return f"seen {last}", f"say[{last}]"


def broken_expert(task: Task, seen: str, memory: str, rng: random.Random) -> tuple[str, str]:
    raise KeyError("lamp")


def wordy_expert(task: Task, seen: str, memory: str, rng: random.Random) -> str:
    return "say[Moon]"


def lost_expert(task: Task, seen: str, memory: str, rng: random.Random) -> tuple[str, str]:
    return "", "jump[up]"
