"""Rewards that a config of the tests names by a dotted name."""

from typing import Any

from lightning_mem1.types import Task


def half(answer: str, task: Task) -> float:
    return 0.5 * len(task.objectives)


def told(answer: str, task: Task) -> dict[str, Any]:
    return {"reward": float(len(answer)), "success": 1.0, "note": answer.upper()}


def fails(answer: str, task: Task) -> float:
    raise KeyError("no such answer")


def words(answer: str, task: Task) -> Any:
    return "a lot"


NUMBER = 3
