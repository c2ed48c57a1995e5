"""Tasks that differ in the seed that an environment is begun with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lightning_mem1.checks import SEED, Range, Ranges, check_numbers
from lightning_mem1.types import Objective, Split, Task

MOST_SEEDS = 2**31  # what everybody's generators take


class SeededTasks:
    """Task `index` of a split begins with a seed of its own, which no other task of any split has.

    Args:
        name: Of the environment, for the names of tasks.
        max_turns: Turns the agent has.
        num_train: Tasks to train on.
        num_val: Tasks of the validation.
        num_test: Tasks of the test.
        seed: Moves all seeds: other numbers give other tasks.

    Raises:
        ValueError: a number is out of range.
    """

    ranges: ClassVar[Ranges] = {
        "max_turns": Range(1),
        "num_train": Range(0, 10**7),
        "num_val": Range(0, 10**6),
        "num_test": Range(0, 10**6),
        "seed": SEED,
    }

    def __init__(self, name: str, max_turns: int, num_train: int, num_val: int, num_test: int, seed: int) -> None:
        check_numbers("data.source", SeededTasks, locals())
        self.name, self.max_turns, self.seed = name, max_turns, seed
        self.sizes: dict[Split, int] = {"train": num_train, "val": num_val, "test": num_test}

    def size(self, split: Split) -> int:
        """Number of tasks in a split."""
        return self.sizes[split]

    def checked(self, split: Split, index: int) -> int:
        """The index; raises IndexError outside of the split."""
        if not 0 <= index < self.sizes[split]:
            raise IndexError(f"task index must be 0 to {self.sizes[split] - 1} in split {split!r}, got {index}")
        return index

    def seed_of(self, split: Split, index: int) -> int:
        """The seed of a task: those of train, val and test follow each other."""
        before = {"train": 0, "val": self.sizes["train"], "test": self.sizes["train"] + self.sizes["val"]}
        number = before[split] + self.checked(split, index)
        return (self.seed * sum(self.sizes.values()) + number) % MOST_SEEDS

    def seeded_task(self, split: Split, index: int, prompt: str, data: Mapping[str, Any] | None = None) -> Task:
        """Task `index` of a split, its seed in its data."""
        seed = self.seed_of(split, index)
        question = (Objective(prompt or f"play {self.name}"),)
        return Task(f"{self.name}/{split}/{index}", prompt, question, self.max_turns, {**(data or {}), "seed": seed})
