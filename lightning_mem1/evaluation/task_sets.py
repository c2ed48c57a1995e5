"""The tasks of an evaluation, by how many objectives they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_mem1.data.source_checks import checked_task, split_size
from lightning_mem1.data.task_data import spread_indices
from lightning_mem1.evaluation.published import Published, published
from lightning_mem1.evaluation.tables import Baseline
from lightning_mem1.types import Split, Task, TaskSource


@dataclass(frozen=True)
class TaskSet:
    """The tasks of one number of objectives.

    Attributes:
        source: Makes them, and deals out this number.
        split: Which split.
        objectives: Objectives per task.
        indices: Numbers of the tasks in their split.
    """

    source: TaskSource
    split: Split
    objectives: int
    indices: list[int]

    def tasks(self) -> dict[int, Task]:
        """The tasks by index."""
        return {index: checked_task(self.source, self.source.task(self.split, index)) for index in self.indices}

    def baselines(self) -> list[Baseline]:
        """Rewards of the source's own baselines on these tasks; none where it has no baselines."""
        play = getattr(self.source, "baselines", None)
        scores = play(self.split, self.indices) if play else {}
        return [Baseline(name, self.objectives, float(reward)) for name, reward in scores.items()]

    def published(self) -> list[Published]:
        """What the paper has for tasks of this kind and length."""
        task = self.source.task(self.split, self.indices[0])
        kind = "webshop" if task.id.startswith("webshop/") else "qa" if task.objectives[0].answers else ""
        return published(kind, self.objectives)


def task_sets(source: TaskSource, numbers: Sequence[int] | None, split: Split, num_tasks: int) -> list[TaskSet]:
    """The tasks of each number of objectives; without numbers the source's own tasks, parted by how many they have.

    Args:
        source: Makes the tasks; with numbers it must have ``with_objectives(k)``, as `QATasks` does.
        numbers: Objectives per task.
        split: Which split.
        num_tasks: Tasks of each number, spread evenly over the split; all of them when there are fewer.

    Raises:
        ValueError: the source cannot deal out other numbers, or has no task of one.
    """
    if numbers is None:
        indices = spread_indices(num_tasks, _size(source, split))
        lengths = {index: len(source.task(split, index).objectives) for index in indices}
        parted = {k: [index for index in indices if lengths[index] == k] for k in sorted(set(lengths.values()))}
        return [TaskSet(source, split, k, part) for k, part in parted.items()]
    with_objectives = getattr(source, "with_objectives", None)
    if with_objectives is None:
        raise ValueError(
            "--objectives is for tasks of several questions: expected a source like QATasks, got "
            f"{type(source).__name__}, which has tasks of its own; leave --objectives out"
        )
    sources = {k: with_objectives(k) for k in numbers}
    return [TaskSet(each, split, k, spread_indices(num_tasks, _size(each, split, k))) for k, each in sources.items()]


def _size(source: TaskSource, split: Split, k: int | None = None) -> int:
    size = split_size(source, split)
    if size < 1:
        of = "" if k is None else f" of {k} objectives"
        raise ValueError(
            f"no {split} tasks{of}: expected at least 1 from {type(source).__name__}, got 0; give it more data or "
            "choose another --split"
        )
    return size
