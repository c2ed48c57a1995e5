"""Composition: k single questions become one task, for any k and any mix of sources.

Task `i` is a pure function of (seed, k, i), so a stream of tasks needs no state to be resumed or shared out among
ranks. A shuffled order of all questions is dealt out k at a time: none comes twice in a task, and none comes again
before all have come.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar, get_args

from lightning_mem1.checks import check_choice
from lightning_mem1.environments.qa.question import Question
from lightning_mem1.types import Objective

Preset = Literal["mixed", "paper", "interdependent", "alike", "paired"]
COMPOSITIONS: tuple[Preset, ...] = get_args(Preset)
BEFORE, NUMBER = "{before}", "{number}"  # in a question that needs another one: "the answer to question 1", "1"
T = TypeVar("T")


@dataclass(frozen=True)
class Composed:
    """The questions of one task in their order, as they are asked.

    Attributes:
        questions: The single questions; their ids are kept.
        objectives: What is asked and accepted; in an interdependent task a question names the earlier one it needs.
    """

    questions: tuple[Question, ...]
    objectives: tuple[Objective, ...]


class Composer:
    """Deals out the questions of some sources, k at a time.

    * ``mixed``: all sources shuffled together, or in the shares of `weights`.
    * ``paper``: k consecutive rows of one source, unshuffled (arXiv 2506.15841); what is left at a source's end is
      left out.
    * ``interdependent``: questions stand behind the ones they need: "Which town is the answer to question 1 from?".
    * ``alike``: questions that begin with the same two words: "Who made X?", "Who made Y?". Who takes one for the other
      gets both wrong, so they teach (and test) to keep objectives apart.
    * ``paired``: pairs of questions that have the same answer, in any order, and one more question when k is odd. Who
      finds a place in a list of answers by the answer before it goes wrong, so they teach to go by the numbers.

    Args:
        sources: Name -> questions.
        preset: How questions are put together.
        weights: Name -> share in ``mixed``; the largest such mix that needs no question twice. None takes everything.
        seed: Of the order.

    Raises:
        ValueError: a preset or a weight that does not exist, or no question at all.
    """

    def __init__(
        self,
        sources: Mapping[str, Sequence[Question]],
        preset: Preset = "mixed",
        weights: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        check_choice("composition", preset, COMPOSITIONS, "data.compose")
        if weights and preset != "mixed":
            raise ValueError(f"weights belong to the composition 'mixed', got '{preset}'; drop data.weights")
        _check_weights(sources, weights)
        self.sources = {name: list(questions) for name, questions in sources.items()}
        self.preset, self.weights, self.seed = preset, weights, seed
        self._dealt = lru_cache(maxsize=32)(self._deal)

    def size(self, k: int) -> int:
        """Number of tasks of k questions."""
        return len(self._dealt(k))

    def compose(self, k: int, index: int) -> Composed:
        """Return task `index` of those with k questions, 0 <= index < size(k)."""
        dealt = self._dealt(k)
        if not 0 <= index < len(dealt):
            raise IndexError(
                f"task index must be 0 to {len(dealt) - 1} for {k} objectives, got {index}; "
                "too few questions make too few tasks"
            )
        return as_asked(dealt[index])

    def _deal(self, k: int) -> list[tuple[Question, ...]]:
        if k < 1:
            raise ValueError(f"objectives must be at least 1 per task, got {k}; set data.objectives")
        if self.preset == "paper":
            rows = ([each for each in questions if not each.needs] for questions in self.sources.values())
            return [task for questions in rows for task in _rows(questions, k)]
        rng = random.Random(f"{self.seed}/{self.preset}")
        pool = _shares(self.sources, self.weights, rng)
        if self.preset == "interdependent":
            if k < 2:
                raise ValueError(f"interdependent tasks need at least 2 objectives, got {k}; set data.objectives")
            return _chained(pool, k, rng)
        singles = [question for question in pool if not question.needs]
        rng.shuffle(singles)
        if self.preset == "paired":
            return _paired(singles, k, rng)
        return _alike(singles, k, rng) if self.preset == "alike" else _rows(singles, k)


def as_asked(questions: Sequence[Question]) -> Composed:
    """Fill in what a question needs: the number of the one that it builds on."""
    place = {question.id: number for number, question in enumerate(questions, 1)}
    objectives = []
    for question in questions:
        text = question.text
        if question.needs:
            number = place[question.needs]
            text = text.replace(BEFORE, f"the answer to question {number}").replace(NUMBER, str(number))
        objectives.append(Objective(text, question.answers))
    return Composed(tuple(questions), tuple(objectives))


def num_objectives(schedule: int | Mapping[int, int] | Sequence[int], rl_step: int, position: int = 0) -> int:
    """How many questions a task of an rl_step has.

    ```
    2                 always two
    [1, 2, 4]         by turns, by the task's position in the batch
    {1: 1, 50: 2}     one from rl_step 1 on, two from rl_step 50 on
    ```
    """
    if isinstance(schedule, int):
        return schedule
    if isinstance(schedule, Mapping):
        started = [first for first in schedule if int(first) <= max(1, rl_step)]
        return schedule[max(started, key=int)]
    return schedule[position % len(schedule)]


def check_schedule(schedule: int | Mapping[int, int] | Sequence[int]) -> None:
    """Raise ValueError for a schedule that leaves an rl_step without a number of objectives, or with none."""
    numbers = [schedule] if isinstance(schedule, int) else list(getattr(schedule, "values", lambda: schedule)())
    if not numbers or min(numbers) < 1:
        raise ValueError(f"objectives must be at least 1 per task, got {schedule}; set data.objectives")
    if isinstance(schedule, Mapping) and min(map(int, schedule)) > 1:
        raise ValueError(f"a curriculum must begin at rl_step 1, got {dict(schedule)}; set data.objectives")


def _rows(questions: Sequence[T], k: int) -> list[tuple[T, ...]]:
    return [tuple(questions[start : start + k]) for start in range(0, len(questions) - k + 1, k)]


def _alike(singles: Sequence[Question], k: int, rng: random.Random) -> list[tuple[Question, ...]]:
    """Tasks of questions that begin with the same two words; what is left of each beginning is left out."""
    return _rows_of_groups(singles, k, rng, lambda question: tuple(question.text.lower().split()[:2]))


def _paired(singles: Sequence[Question], k: int, rng: random.Random) -> list[tuple[Question, ...]]:
    """Tasks of pairs with the same first accepted answer; what is left of each answer fills up where k is odd."""
    pairs = _rows_of_groups(singles, 2, rng, lambda question: question.answers[0].lower())
    in_pairs = {question.id for pair in pairs for question in pair}
    left = [question for question in singles if question.id not in in_pairs]
    tasks = []
    for chosen in _rows(pairs, k // 2) if k > 1 else [() for _ in left]:
        if k % 2 and not left:
            break
        task = [question for pair in chosen for question in pair] + ([left.pop()] if k % 2 else [])
        rng.shuffle(task)
        tasks.append(tuple(task))
    return tasks


def _rows_of_groups(
    singles: Sequence[Question], k: int, rng: random.Random, key: Callable[[Question], Hashable]
) -> list[tuple[Question, ...]]:
    groups: dict[Hashable, list[Question]] = {}
    for question in singles:
        groups.setdefault(key(question), []).append(question)
    rows = [row for questions in groups.values() for row in _rows(questions, k)]
    rng.shuffle(rows)
    return rows


def _shares(
    sources: Mapping[str, Sequence[Question]], weights: Mapping[str, float] | None, rng: random.Random
) -> list[Question]:
    """All questions, or as many of each source as its share allows."""
    if weights is None:
        return [question for questions in sources.values() for question in questions]
    total = min(len(sources[name]) / share for name, share in weights.items() if share > 0)
    counts = {name: int(total * share + 1e-9) for name, share in weights.items()}
    return [question for name, count in counts.items() for question in rng.sample(sources[name], count)]


def _chained(pool: Sequence[Question], k: int, rng: random.Random) -> list[tuple[Question, ...]]:
    """Tasks of whole chains, each question behind the one it needs; single questions fill up what is left."""
    followers: dict[str, list[Question]] = {}
    for question in pool:
        if question.needs:
            followers.setdefault(question.needs, []).append(question)
    heads = [question for question in pool if not question.needs]
    rng.shuffle(heads)
    chains = [_chain(head, followers, k) for head in heads]
    long = [chain for chain in chains if len(chain) > 1]
    short = [chain for chain in chains if len(chain) == 1]
    tasks: list[tuple[Question, ...]] = []
    task: list[Question] = []
    while long or (task and short):  # a chain in every task
        room = k - len(task)
        if long and min(len(long[-1]), room) > 1:
            task += long.pop()[:room]
        else:
            task.append((short or long).pop()[0])
        if len(task) == k:
            tasks.append(tuple(task))
            task = []
    return tasks


def _chain(head: Question, followers: Mapping[str, list[Question]], longest: int) -> list[Question]:
    chain = [head]
    while len(chain) < longest and chain[-1].id in followers:
        chain.append(followers[chain[-1].id][0])
    return chain


def _check_weights(sources: Mapping[str, Sequence[Question]], weights: Mapping[str, float] | None) -> None:
    if not any(sources.values()):
        raise ValueError(f"no questions: expected at least 1 in {', '.join(sources) or 'a source'}, got 0")
    if weights is None:
        return
    if unknown := sorted(set(weights) - set(sources)):
        raise ValueError(f"weights name no source: expected {', '.join(sources)}, got {', '.join(unknown)}")
    if min(weights.values()) < 0 or not sum(weights.values()):
        raise ValueError(f"weights must be positive numbers, got {dict(weights)}; set data.weights")
