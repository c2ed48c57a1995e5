"""Feeds tasks of k questions to training and validation: by default over a generated encyclopedia, else over files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from lightning_mem1.checks import Range, Ranges, check_choice, check_numbers
from lightning_mem1.data.task_data import TaskDataModule
from lightning_mem1.environments.qa.composition import Preset
from lightning_mem1.environments.qa.encyclopedia.questions import WORDINGS, Wording
from lightning_mem1.environments.qa.encyclopedia.world import Encyclopedia, EncyclopediaSettings
from lightning_mem1.environments.qa.judge import JudgeSettings
from lightning_mem1.environments.qa.retrieval.corpus import Corpus
from lightning_mem1.environments.qa.retrieval.factory import (
    DENSE_MODEL,
    check_passages,
    check_retriever,
    make_retriever,
)
from lightning_mem1.environments.qa.retrieval.passage import Retriever, Style
from lightning_mem1.environments.qa.retrieval.web import WebSettings
from lightning_mem1.environments.qa.rewards import reward_of
from lightning_mem1.environments.qa.scoring import Variant
from lightning_mem1.types import TaskSource


class QAData(TaskDataModule):
    """Multi-objective questions, answered by searching.

    Args:
        questions: Training questions: ``.jsonl``, ``.json``, ``.csv``, ``.parquet`` or ``.arrow`` files, folders of
            ``save_to_disk`` or ``hub:<name>:<config>:<split>``; null for the generated encyclopedia.
        val_questions: Files of validation questions; null parts a tenth of `questions` off.
        test_questions: The same for the test.
        corpus: File of passages (rows with title and text, or with contents); null for the paragraphs that come with
            the questions.
        index: Folder where the corpus' index is kept, made at first use and shared by processes; null keeps it in
            memory.
        retriever: bm25, dense (sentence-transformers and FAISS, extra ``dense``), web (Serper's protocol), or the
            address of a server that speaks Search-R1's protocol, e.g. ``http://127.0.0.1:8000/retrieve``.
        web: How the web is searched.
        dense_model: Model of the dense retriever: a folder or a name of the hub.
        objectives: Questions per task: a number, a list (by turns), or a curriculum ``{rl_step: number}``.
        compose: mixed, paper (consecutive rows of one set), interdependent (question 2 needs answer 1), alike
            (questions that begin alike) or paired (pairs of questions with the same answer).
        weights: Share of each set in a mixed composition, by file name without its ending; null takes everything.
        hops: Facts to be put together in a question of the encyclopedia.
        wording: How the encyclopedia asks: question, or topic ("Odo Lin home town?").
        encyclopedia: The generated world: its size and its seed.
        turns_per_task: Turns the agent has; null for three per objective and one for the answer, at least 6.
        top_k: Passages of a reply.
        style: compact, or release for published checkpoints (questions and documents as MEM1's code writes them).
        reward: What an answer pays: em (number of right answers), f1, em_mean or f1_mean; the dotted name of a
            function ``reward(answer, task)`` that returns a number, or a dict with ``reward`` and more; or a judge, a
            model behind an endpoint that grades answers.
        variant: How answers are compared: fixed (SQuAD), official (the public MEM1 code) or numbered (fixed, where the
                agent may write an answer's number before it, ``1 odo lin 2 trier``).
        max_question_chars: Longer questions are left out.
        stream: How tasks are fed, see `TaskDataModule`: tasks_per_step, group_size, num_rl_steps and so on.
    """

    ranges: ClassVar[Ranges] = {
        "objectives": Range(1, 10**4),
        "hops": Range(1, 3),
        "turns_per_task": Range(1),
        "top_k": Range(1, 10**6),
        "max_question_chars": Range(1),
    }

    def __init__(
        self,
        questions: str | list[str] | None = None,
        val_questions: str | list[str] | None = None,
        test_questions: str | list[str] | None = None,
        corpus: str | None = None,
        index: str | None = None,
        retriever: str = "bm25",
        web: WebSettings = WebSettings(),  # noqa: B008
        dense_model: str = DENSE_MODEL,
        objectives: int | list[int] | dict[int, int] = 2,
        compose: Preset = "mixed",
        weights: dict[str, float] | None = None,
        hops: list[int] | None = None,
        wording: Wording = "question",
        encyclopedia: EncyclopediaSettings = EncyclopediaSettings(),  # noqa: B008
        turns_per_task: int | None = None,
        top_k: int = 3,
        style: Style = "compact",
        reward: str | JudgeSettings = "em",
        variant: Variant = "fixed",
        max_question_chars: int = 2000,
        **stream: Any,
    ) -> None:
        check_numbers("data", QAData, locals())
        super().__init__(source=None, **stream)
        check_choice("wording", wording, WORDINGS, "data.wording")
        check_retriever(retriever)
        check_passages(retriever, corpus, index)
        _check_questions(questions, bool(val_questions or test_questions or corpus), wording)
        self.questions, self.corpus = _paths(questions), corpus
        self.val_questions = None if val_questions is None else _paths(val_questions)
        self.test_questions = None if test_questions is None else _paths(test_questions)
        self.retriever, self.index, self.dense_model, self.web = retriever, index, dense_model, web
        self.hops, self.wording, self.encyclopedia = hops or [1, 2], wording, encyclopedia
        self.max_question_chars = max_question_chars
        self.settings = {
            "objectives": objectives,
            "compose": compose,
            "weights": weights,
            "max_turns": turns_per_task,
            "top_k": top_k,
            "style": style,
            "reward": reward_of(reward, variant),
            "variant": variant,
        }

    def files(self) -> list[str]:
        """Questions and passages."""
        held_out = [*(self.val_questions or []), *(self.test_questions or [])]
        return [*self.questions, *held_out, *([self.corpus] if self.corpus else [])]

    def make_source(self) -> TaskSource:
        """Generate the encyclopedia, or read the questions and index the corpus."""
        from lightning_mem1.environments.qa.question_files import split_questions
        from lightning_mem1.environments.qa.tasks import EncyclopediaTasks, QATasks

        if not self.questions:
            seed, size = self.encyclopedia.seed, self.encyclopedia.num_passages
            own = self.retriever == "bm25" and self.index is None
            searched = None if own else self._retriever()
            return EncyclopediaTasks(seed, size, self.hops, searched, self.wording, **self.settings)
        splits = split_questions(self.questions, self.val_questions, self.test_questions, self.max_question_chars)
        return QATasks(splits, self._retriever(), seed=self.seed, **self.settings)  # type: ignore[arg-type]

    def _retriever(self) -> Retriever:
        return make_retriever(self.retriever, self._corpus(), self.index, self.dense_model, self.web)

    def _corpus(self) -> Corpus:
        if self.corpus:
            return Corpus.of_file(self.corpus)
        if self.questions:
            return Corpus.of_questions(self.questions)
        seed, size = self.encyclopedia.seed, self.encyclopedia.num_passages
        name = f"the encyclopedia of {size:,} passages and seed {seed}"
        return Corpus(name, lambda: Encyclopedia(seed, size).passages)


def _check_questions(questions: str | Sequence[str] | None, more: bool, wording: str) -> None:
    """Settings of files belong to files, those of the encyclopedia to it."""
    if questions is None and more:
        raise ValueError(
            "val_questions, test_questions and corpus belong to data.questions, got none: give it or drop them"
        )
    if questions is not None and not questions:
        raise ValueError(
            "data.questions is empty: expected at least 1 file, got none; null for the generated encyclopedia"
        )
    if questions is not None and wording != "question":
        raise ValueError(f"data.wording belongs to the generated encyclopedia, got '{wording}'; drop it")


def _paths(given: str | Sequence[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or [])
