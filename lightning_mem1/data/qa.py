"""Feeds tasks of k questions to training and validation: by default over a generated encyclopedia, else over files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from lightning_mem1.checks import check_choice, check_least
from lightning_mem1.data.task_data import TaskDataModule
from lightning_mem1.environments.qa.composition import Preset
from lightning_mem1.environments.qa.encyclopedia.questions import WORDINGS, Wording
from lightning_mem1.environments.qa.retrieval.bm25 import BM25, built
from lightning_mem1.environments.qa.retrieval.passage import Retriever, Style
from lightning_mem1.environments.qa.retrieval.web import Web, WebSettings
from lightning_mem1.environments.qa.scoring import RewardKind, Variant
from lightning_mem1.types import TaskSource


class QAData(TaskDataModule):
    """Multi-objective questions, answered by searching.

    Args:
        questions: Files of training questions (FlashRAG or HotpotQA-like ``.jsonl[.gz]``, ``.parquet`` of Search-R1 or
            MEM1) or ``hub:<name>:<config>:<split>``; null for the generated encyclopedia.
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
        num_passages: Size of the encyclopedia.
        world_seed: Draws the encyclopedia.
        turns_per_task: Turns the agent has; null for three per objective and one for the answer, at least 6.
        top_k: Passages of a reply.
        style: compact, or release for published checkpoints (questions and documents as MEM1's code writes them).
        reward: What an answer pays: em (number of right answers), f1, em_mean or f1_mean.
        variant: How answers are compared: fixed (SQuAD), official (the public MEM1 code) or numbered (fixed, where the
                agent may write an answer's number before it, ``1 odo lin 2 trier``).
        max_question_chars: Longer questions are left out.
        tasks_per_step: Different tasks in one rl_step, over all ranks.
        group_size: Episodes of each task.
        num_rl_steps: Collect-and-update iterations of the whole run, resumed parts included; null for no end.
        num_val_tasks: Validation tasks, spread evenly over the split; the same ones each time.
        val_batch_size: Validation tasks played at once on one rank.
        seed: Of the order of tasks; null takes `seed_everything`'s.
    """

    def __init__(
        self,
        questions: str | list[str] | None = None,
        val_questions: str | list[str] | None = None,
        test_questions: str | list[str] | None = None,
        corpus: str | None = None,
        index: str | None = None,
        retriever: str = "bm25",
        web: WebSettings = WebSettings(),  # noqa: B008
        dense_model: str = "intfloat/e5-base-v2",
        objectives: int | list[int] | dict[int, int] = 2,
        compose: Preset = "mixed",
        weights: dict[str, float] | None = None,
        hops: list[int] | None = None,
        wording: Wording = "question",
        num_passages: int = 5400,
        world_seed: int = 0,
        turns_per_task: int | None = None,
        top_k: int = 3,
        style: Style = "compact",
        reward: RewardKind = "em",
        variant: Variant = "fixed",
        max_question_chars: int = 2000,
        tasks_per_step: int = 8,
        group_size: int = 8,
        num_rl_steps: int | None = 40,
        num_val_tasks: int = 100,
        val_batch_size: int = 128,
        seed: int | None = None,
    ) -> None:
        super().__init__(None, tasks_per_step, group_size, num_rl_steps, num_val_tasks, val_batch_size, seed)
        check_least("data.top_k", top_k, 1)
        if turns_per_task is not None:
            check_least("data.turns_per_task", turns_per_task, 1)
        if questions is None and (val_questions or test_questions or corpus):
            raise ValueError(
                "val_questions, test_questions and corpus belong to data.questions, got none: give it or drop them"
            )
        check_choice("wording", wording, WORDINGS, "data.wording")
        if questions is not None and wording != "question":
            raise ValueError(f"data.wording belongs to the generated encyclopedia, got '{wording}'; drop it")
        if retriever not in ("bm25", "dense", "web") and not retriever.startswith(("http://", "https://")):
            raise ValueError(
                f"unknown retriever: expected bm25, dense, web or an address, got '{retriever}'; set data.retriever"
            )
        self.questions, self.corpus, self.index = _paths(questions), corpus, index
        self.val_questions = None if val_questions is None else _paths(val_questions)
        self.test_questions = None if test_questions is None else _paths(test_questions)
        self.retriever, self.web, self.dense_model = retriever, web, dense_model
        self.wording = wording
        self.hops, self.num_passages, self.world_seed = hops or [1, 2], num_passages, world_seed
        self.max_question_chars = max_question_chars
        self.settings = {
            "objectives": objectives,
            "compose": compose,
            "weights": weights,
            "max_turns": turns_per_task,
            "top_k": top_k,
            "style": style,
            "reward": reward,
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
            server = self._server() if self.retriever != "bm25" else None
            return EncyclopediaTasks(
                self.world_seed, self.num_passages, self.hops, server, self.wording, **self.settings
            )
        splits = split_questions(self.questions, self.val_questions, self.test_questions, self.max_question_chars)
        return QATasks(splits, self._server(), seed=self.seed, **self.settings)  # type: ignore[arg-type]

    def _server(self) -> Retriever:
        from lightning_mem1.environments.qa.encyclopedia.world import Encyclopedia
        from lightning_mem1.environments.qa.retrieval.corpus import distinct, passages_of, read_corpus

        if self.retriever.startswith("http"):
            from lightning_mem1.environments.qa.retrieval.remote import RemoteRetriever

            return RemoteRetriever(self.retriever)
        if self.retriever == "web":
            return Web(self.web)

        def passages():  # type: ignore[no-untyped-def]
            if not self.questions:
                return Encyclopedia(self.world_seed, self.num_passages).passages
            return distinct(read_corpus(self.corpus) if self.corpus else chain(*map(passages_of, self.questions)))

        if self.retriever == "dense":
            from lightning_mem1.environments.qa.retrieval.dense import Dense

            return built(Dense, passages, self.index, model=self.dense_model)
        return built(BM25, passages, self.index)


def _paths(given: str | Sequence[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or [])
