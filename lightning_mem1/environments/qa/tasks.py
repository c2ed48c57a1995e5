"""Tasks of k questions: over the generated encyclopedia, over files, over any corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import lru_cache
from typing import ClassVar

from lightning_mem1.checks import SEED, Range, Ranges, check_numbers
from lightning_mem1.environments.qa.composition import Composer, Preset, check_schedule, num_objectives
from lightning_mem1.environments.qa.encyclopedia.questions import Wording
from lightning_mem1.environments.qa.encyclopedia.questions import questions as quiz
from lightning_mem1.environments.qa.encyclopedia.world import MIN_PASSAGES, Encyclopedia
from lightning_mem1.environments.qa.env import RetrievalEnv
from lightning_mem1.environments.qa.question import Question
from lightning_mem1.environments.qa.retrieval.bm25 import BM25
from lightning_mem1.environments.qa.retrieval.passage import Retriever, Style
from lightning_mem1.environments.qa.retrieval.web import Web
from lightning_mem1.environments.qa.scoring import Reward, Variant
from lightning_mem1.environments.qa.scripted_researcher.researcher import EXPERT_RESEARCHER, play
from lightning_mem1.environments.qa.web_env import WebEnv
from lightning_mem1.types import Env, Objective, Split, Task

Schedule = int | Mapping[int, int] | Sequence[int]
Sources = Mapping[str, Sequence[Question]]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SEARCHED = 200  # validation tasks that the researcher plays at most for the baseline


class QATasks:
    """Tasks composed of single questions; satisfies `types.TaskSource`.

    Args:
        sources: Split -> name of a set -> its questions.
        retriever: What the agent searches.
        objectives: Questions per task: a number; a list (by turns); or a curriculum ``{rl_step: number}``. Validation
            takes the last number of a curriculum.
        compose: ``mixed``, ``paper``, ``interdependent``, ``alike`` or ``paired``, see `Composer`.
        weights: Share of each set in ``mixed``.
        max_turns: Turns per task; None for three per objective and one for the answer, at least 6.
        top_k: Passages of a reply.
        style: How passages and questions are written: ``compact``, or ``release`` for published checkpoints.
        reward: What an answer pays.
        variant: How answers are compared.
        seed: Of the composition.

    Raises:
        ValueError: a setting is out of its range.
    """

    ranges: ClassVar[Ranges] = {
        "objectives": Range(1, 10**4),
        "max_turns": Range(1),
        "top_k": Range(1, 10**6),
        "seed": SEED,
    }

    def __init__(
        self,
        sources: Mapping[Split, Sources],
        retriever: Retriever,
        *,
        objectives: Schedule = 2,
        compose: Preset = "mixed",
        weights: Mapping[str, float] | None = None,
        max_turns: int | None = None,
        top_k: int = 3,
        style: Style = "compact",
        reward: Reward = "em",
        variant: Variant = "fixed",
        seed: int = 0,
    ) -> None:
        check_numbers("data.source", QATasks, locals())
        check_schedule(objectives)
        self.retriever, self.objectives, self.max_turns = retriever, objectives, max_turns
        self.top_k, self.style, self.reward, self.variant = top_k, style, reward, variant
        self.composers = {
            split: Composer(sources[split], compose, weights, seed) for split in SPLITS if any(sources[split].values())
        }

    def size(self, split: Split) -> int:
        """Number of tasks in a split: for a list of objectives as many as there are of each number."""
        turns = len(self.objectives) if isinstance(self.objectives, Sequence) else 1
        return min(self.sized(split, self._k(split, 1, position)) for position in range(turns))

    def sized(self, split: Split, k: int) -> int:
        """Number of tasks of k objectives in a split."""
        return self.composers[split].size(k) if split in self.composers else 0

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of a split."""
        return self.task_of(split, index, self._k(split, 1, index))

    def task_at(self, rl_step: int, index: int, position: int) -> Task:
        """Return the training task that an rl_step asks at a position: the schedule says how many objectives."""
        k = num_objectives(self.objectives, rl_step, position)
        return self.task_of("train", index % max(1, self.sized("train", k)), k)

    def task_of(self, split: Split, index: int, k: int) -> Task:
        """Return task `index` among those of k objectives."""
        if split not in self.composers:
            raise IndexError(f"no questions in split {split!r}: give it some")
        composed = self.composers[split].compose(k, index)
        ids = tuple(question.id for question in composed.questions)
        return Task(
            id=f"qa/{split}/{k}/{index}",
            prompt=ask(composed.objectives, self.style),
            objectives=composed.objectives,
            max_turns=turn_budget(k) if self.max_turns is None else self.max_turns,
            data={"questions": ids, "hops": tuple(question.hops for question in composed.questions)},
        )

    def with_objectives(self, k: int) -> QATasks:
        """Return the same questions and retriever, dealt out k to a task."""
        check_schedule(k)
        source = copy(self)
        source.objectives = k
        return source

    def env(self, task: Task) -> Env:
        """Return a fresh environment for a task of this source."""
        if isinstance(self.retriever, Web):
            return WebEnv(task, self.retriever, self.top_k, self.reward, self.variant)
        return RetrievalEnv(task, self.retriever, self.top_k, self.style, self.reward, self.variant)

    def _k(self, split: Split, rl_step: int, position: int) -> int:
        last = split != "train" and isinstance(self.objectives, Mapping)
        return num_objectives(self.objectives, 1 << 62 if last else rl_step, position)


class EncyclopediaTasks(QATasks):
    """Tasks over a generated encyclopedia; offline and made in a second.

    Args:
        seed: Draws world, questions and composition.
        num_passages: Size of the world.
        hops: Which questions: 1, 2 or 3 facts that have to be put together.
        wording: ``question``, or ``topic`` ("Odo Lin home town?"), see `tasks.quiz`.
        settings: As for `QATasks`.
    """

    ranges: ClassVar[Ranges] = {"num_passages": Range(MIN_PASSAGES, 10**7), "hops": Range(1, 3)}

    def __init__(
        self, seed: int = 0, num_passages: int = 5400, hops: Sequence[int] = (1, 2), retriever: Retriever | None = None,
        wording: Wording = "question", **settings: object,
    ) -> None:  # fmt: skip
        check_numbers("data.source", EncyclopediaTasks, locals())
        world, questions = _world(seed, num_passages, tuple(hops), wording)
        super().__init__(questions, retriever or world, seed=seed, **settings)  # type: ignore[arg-type]

    def baselines(self, split: Split, indices: Sequence[int]) -> dict[str, float]:
        """Mean reward of the scripted researcher, which reads the generated encyclopedia only."""
        tasks = [self.task(split, index) for index in indices[:SEARCHED]]
        return {"researcher": sum(play(self.env(t), t, EXPERT_RESEARCHER).reward for t in tasks) / max(1, len(tasks))}


@lru_cache(maxsize=2)
def _world(
    seed: int, num_passages: int, hops: tuple[int, ...], wording: Wording
) -> tuple[BM25, dict[Split, dict[str, list[Question]]]]:
    world = Encyclopedia(seed, num_passages)
    return BM25(world.passages), {split: {"encyclopedia": quiz(world, split, hops, wording)} for split in SPLITS}


def turn_budget(k: int) -> int:
    """Turns for k objectives: three each and one for the answer, at least 6."""
    return max(6, 3 * k + 1)


def ask(objectives: Sequence[Objective], style: Style = "compact", first: int = 1) -> str:
    """The questions as the agent reads them, in style ``compact`` numbered from `first` on.

    ```
    compact    1 Who wrote Emma?          release    Answer the following questions: Who wrote Emma?; Where is Ulm?
               2 Where is Ulm?
    ```
    """
    if style == "compact":
        return "\n".join(f"{n} {objective.question}" for n, objective in enumerate(objectives, first))
    asked = (objective.question.strip() for objective in objectives)
    return f"Answer the following questions: {'; '.join(q if q.endswith('?') else f'{q}?' for q in asked)}"
