"""The settings of demonstrations of one's own task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lightning_mem1.checks import Range, Ranges
from lightning_mem1.io.chat_client import EndpointSettings
from lightning_mem1.types import TaskSource


@dataclass
class TeacherSettings:
    """A model behind an OpenAI-compatible endpoint that plays the training tasks.

    Args:
        endpoint: Where it is, and how it is asked.
        num_tasks: Training tasks that it plays, spread over them.
        samples: Most episodes of a task.
        keep: A task is played until so many of its episodes reach `data.min_reward`.
        temperature: Of its sampling.
        max_new_tokens: Limit of one turn.
        parallel: Turns asked for at once.
        instructions: Explanation of the format to put before the task, in place of the one for chat models.
    """

    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    num_tasks: int = 100
    samples: int = 4
    keep: int = 1
    temperature: float = 1.0
    max_new_tokens: int = 512
    parallel: int = 8
    instructions: str = ""
    ranges: ClassVar[Ranges] = {
        "num_tasks": Range(1, 10**6),
        "samples": Range(1, 10**4),
        "keep": Range(1, 10**4),
        "temperature": Range(0, 1000),
        "max_new_tokens": Range(1),
        "parallel": Range(1, 1024),
    }


@dataclass
class OwnDemonstrations:
    """What is cloned of a task of one's own. With one of expert, teacher and file set, no world of the package is.

    Args:
        source: Makes the tasks and their environments; a `class_path` with `init_args`, as in the config of `fit`.
        expert: Dotted name of a scripted expert, ``expert(task, seen, memory, rng) -> (memory, action)``.
        file: JSON lines of turns or of chat messages. With a teacher, where its episodes are kept; null for
            demonstrations.jsonl in the output folder.
        teacher: Who plays the tasks over HTTP, see `TeacherSettings`.
    """

    source: TaskSource | None = None
    expert: str | None = None
    file: str | None = None
    teacher: TeacherSettings | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("expert", "teacher") if getattr(self, name)]
        if len(given) == 2 or (self.expert and self.file):
            raise ValueError(
                "own demonstrations come from one place: expected one of warmstart.data.own.expert, teacher and file, "
                f"got {' and '.join([*given, *(['file'] if self.file else [])])}; drop the others"
            )
        if given and self.source is None:
            raise ValueError(
                f"warmstart.data.own.{given[0]} plays tasks: expected warmstart.data.own.source with a class_path, got "
                "null; name your task source"
            )
        if self.source is not None and not (given or self.file):
            raise ValueError(
                "nothing shows how the task is played: expected warmstart.data.own.expert, teacher or file, got none "
                "of them; set one"
            )

    @property
    def given(self) -> bool:
        """Whether a task of one's own is cloned."""
        return bool(self.expert or self.file or self.teacher)
