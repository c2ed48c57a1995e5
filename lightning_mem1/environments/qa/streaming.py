"""Composition of a data set that is too large to hold: `datasets` streams, shuffles, shares out and resumes.

Unlike `compose.Composer` it sees each question once and knows no index, so a shuffle reaches only as far as its buffer.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from lightning_mem1.environments.qa.composition import as_asked
from lightning_mem1.environments.qa.question import Question, fit_to_ask
from lightning_mem1.environments.qa.question_files import questions_in


def composed_stream(
    rows: Any, k: int, source: str, *, seed: int | None = 0, buffer: int = 10_000, rank: int = 0, world: int = 1
) -> Any:
    """Compose k consecutive questions of a stream into a row ``{"ids", "questions", "answers"}``.

    Args:
        rows: A `datasets.IterableDataset` of question rows, see `qa_files.questions_in`.
        k: Questions per task.
        source: Name of the set, for ids.
        seed: Of the shuffle; None keeps the order, as the paper does.
        buffer: Rows that the shuffle holds.
        rank: Number of this process.
        world: Number of processes; each gets its own share of the rows.

    Returns:
        A `datasets.IterableDataset`; its `state_dict` and `load_state_dict` resume it. Rows that cannot be asked are
        left out, and so is a question that stands twice in what would be one task.
    """
    from datasets.distributed import split_dataset_by_node

    if k < 1:
        raise ValueError(f"objectives must be at least 1 per task, got {k}")
    if seed is not None:
        rows = rows.shuffle(seed=seed, buffer_size=buffer)
    rows = split_dataset_by_node(rows, rank, world)
    singles = rows.map(
        lambda batch: _single(batch, source), batched=True, batch_size=64, remove_columns=rows.column_names
    )
    tasks = singles.batch(batch_size=k, drop_last_batch=True)
    return tasks.filter(lambda task: len({text.lower() for text in task["text"]}) == k).map(
        _compose, remove_columns=["id", "text", "answers"]
    )


def _single(batch: dict[str, list[Any]], source: str) -> dict[str, list[Any]]:
    told: Counter[str] = Counter()
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    kept = fit_to_ask((question for row in rows for question in questions_in(row, source, told)), told)
    return {
        "id": [question.id for question in kept],
        "text": [question.text for question in kept],
        "answers": [list(question.answers) for question in kept],
    }


def _compose(task: dict[str, list[Any]]) -> dict[str, list[Any]]:
    columns = zip(task["id"], task["text"], task["answers"], strict=True)
    composed = as_asked([Question(name, text, tuple(answers)) for name, text, answers in columns])
    return {
        "ids": [question.id for question in composed.questions],
        "questions": [objective.question for objective in composed.objectives],
        "answers": [list(objective.answers) for objective in composed.objectives],
    }
