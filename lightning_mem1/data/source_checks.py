"""What a task source of anybody's gives is what `types.TaskSource` says, or the source is named."""

from __future__ import annotations

from typing import Any

from lightning_mem1.types import Split, Task, TaskSource

MOST_TASKS = 10**7  # their order is a list in memory


def split_size(source: TaskSource, split: Split) -> int:
    """How many tasks a split has.

    Raises:
        ValueError: the source answers with something else, or with more than an order is drawn for.
    """
    size: Any = source.size(split)
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MOST_TASKS:
        raise ValueError(
            f"{type(source).__name__}.size('{split}') is no number of tasks: expected a whole number from 0 to "
            f"{MOST_TASKS:,}, got {size!r:.60}; correct that method"
        )
    return size


def checked_task(source: TaskSource, task: Any) -> Task:
    """A task as the source has made it.

    Raises:
        ValueError: it is no `Task`, or one without a text or a turn.
    """
    name = type(source).__name__
    if not isinstance(task, Task):
        raise ValueError(
            f"{name} makes no tasks: expected lightning_mem1.types.Task, got {task!r:.60}; correct its task()"
        )
    for field, kind in (("id", str), ("prompt", str), ("max_turns", int)):
        if not isinstance(value := getattr(task, field), kind):
            raise ValueError(
                f"{name} makes a task that cannot be played: expected {field} to be {kind.__name__}, got "
                f"{value!r:.60}; correct its task()"
            )
    if task.max_turns < 1:
        raise ValueError(
            f"{name} makes a task that cannot be played: expected max_turns of at least 1, got {task.max_turns}; "
            "correct its task()"
        )
    return task
