"""Feeds long documents to training and validation: generated ones by default, else those of files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from lightning_mem1.checks import Ranges, check_numbers
from lightning_mem1.data.task_data import TaskDataModule
from lightning_mem1.environments.qa.judge import JudgeSettings
from lightning_mem1.environments.qa.rewards import reward_of
from lightning_mem1.environments.qa.scoring import Variant
from lightning_mem1.environments.reading.stories import Kind
from lightning_mem1.environments.reading.tasks import LENGTHS, Style
from lightning_mem1.types import TaskSource


class ReadingData(TaskDataModule):
    """A document that arrives part by part, and a question that is answered at its end.

    Args:
        questions: Questions with paragraphs or a document: ``.jsonl``, ``.json``, ``.csv``, ``.parquet`` or ``.arrow``
            files, folders of ``save_to_disk``, ``hub:<name>:<config>:<split>``, or a file of a data set,
            ``hub:<owner>/<name>/<file>``; null for generated documents.
        val_questions: Files of validation questions; null parts a tenth of the rows of `questions` off.
        test_questions: The same for the test.
        kinds: Kinds of questions about generated documents: needle, conflict, hops, tracking and counting; null for all
            of them.
        length: Tokens of a document, words and punctuation marks counted; a list draws among its numbers. A document
            that a file has as one text stays as it is.
        part: Tokens of a part. A tokenizer may have more of them: keep model.rollout.max_information_tokens above.
        turns_per_part: Turns for each part; two more are for the answer and one that goes wrong. 2 or more for memory
            modes whose own actions cost turns.
        style: compact (the question alone) or explained (what to do as well, for chat models).
        reward: What an answer pays: em (exact match), f1, a dotted name or a judge, see `QAData`.
        variant: How answers are compared: fixed (SQuAD) or official (the public MEM1 code).
        stream: How tasks are fed, see `TaskDataModule`: tasks_per_step, group_size, num_rl_steps and so on.
    """

    ranges: ClassVar[Ranges] = LENGTHS

    def __init__(
        self,
        questions: str | list[str] | None = None,
        val_questions: str | list[str] | None = None,
        test_questions: str | list[str] | None = None,
        kinds: list[Kind] | None = None,
        length: int | list[int] = 1000,
        part: int = 250,
        turns_per_part: int = 1,
        style: Style = "compact",
        reward: str | JudgeSettings = "em",
        variant: Variant = "fixed",
        **stream: Any,
    ) -> None:
        check_numbers("data", ReadingData, locals())
        super().__init__(source=None, **stream)
        self.questions = _paths(questions)
        self.val_questions = None if val_questions is None else _paths(val_questions)
        self.test_questions = None if test_questions is None else _paths(test_questions)
        self.kinds = kinds
        self.settings: dict[str, Any] = {"length": length, "part": part, "turns_per_part": turns_per_part}
        self.settings |= {"style": style, "reward": reward_of(reward, variant), "variant": variant}
        _check_files(questions, bool(val_questions or test_questions), kinds)

    def files(self) -> list[str]:
        """The files of the questions."""
        return [*self.questions, *(self.val_questions or []), *(self.test_questions or [])]

    def make_source(self) -> TaskSource:
        """Make the generator, or read the files."""
        from lightning_mem1.environments.reading.file_tasks import FileTasks, split_asked
        from lightning_mem1.environments.reading.tasks import ReadingTasks

        if not self.questions:
            return ReadingTasks(self.kinds, **self.settings)  # type: ignore[arg-type]
        asked = split_asked(self.questions, self.val_questions, self.test_questions)
        return FileTasks(asked, seed=self.seed, **self.settings)  # type: ignore[arg-type]


def _check_files(questions: str | Sequence[str] | None, more: bool, kinds: Sequence[Kind] | None) -> None:
    """Settings of files belong to files, those of the generator to it."""
    if questions is None and more:
        raise ValueError("val_questions and test_questions belong to data.questions, got none: give it or drop them")
    if questions is not None and not questions:
        raise ValueError("data.questions is empty: expected at least 1 file, got none; null for generated documents")
    if questions is not None and kinds is not None:
        raise ValueError("data.kinds belongs to generated documents, got it with data.questions; drop one of them")


def _paths(given: str | Sequence[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or [])
