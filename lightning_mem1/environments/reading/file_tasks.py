"""Tasks of one document and one question: over files of questions."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from lightning_mem1.checks import check_choice, check_least
from lightning_mem1.environments.qa.question_files import hashed_split
from lightning_mem1.environments.qa.scoring import Reward, Variant
from lightning_mem1.environments.reading.env import ReadingEnv
from lightning_mem1.environments.reading.parts import num_tokens, parts
from lightning_mem1.environments.reading.question_rows import Asked, read_asked
from lightning_mem1.environments.reading.tasks import (
    NUM_SAMPLES,
    STYLES,
    Style,
    ask,
    check_lengths,
    sample_of,
    turn_budget,
)
from lightning_mem1.types import Env, Objective, Split, Task

SPLITS: tuple[Split, ...] = ("train", "val", "test")


class FileTasks:
    """Documents of files; satisfies `types.TaskSource`.

    Args:
        asked: Questions with their documents, by split.
        length: Tokens of a document that is mixed from paragraphs (words and punctuation marks), or several numbers,
            drawn evenly. Paragraphs of other rows are added until there are as many; what has to be read is always in
            it. A whole text stays as long as it is.
        part: Tokens of a part.
        turns_per_part: Turns for each part, see `ReadingTasks`.
        style: ``compact`` or ``explained``, see `ReadingTasks`.
        reward: What an answer pays: em or f1.
        variant: How answers are compared.
        seed: Of what is mixed in, and of the order of paragraphs.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(
        self,
        asked: Mapping[Split, Sequence[Asked]],
        length: int | Sequence[int] = 1000,
        part: int = 250,
        turns_per_part: int = 1,
        *,
        style: Style = "compact",
        reward: Reward = "em",
        variant: Variant = "fixed",
        seed: int = 0,
    ) -> None:
        self.asked, self.lengths = asked, check_lengths(length)
        self.part, self.style, self.reward, self.variant, self.seed = part, style, reward, variant, seed
        self.turns_per_part = turns_per_part
        check_least("data.part", part, 1)
        check_least("data.turns_per_part", turns_per_part, 1)
        check_choice("style", style, STYLES, "data.style")
        mixed = (each for split in SPLITS for each in asked.get(split, ()) if not each.whole)
        self.pool = tuple(dict.fromkeys(text for each in mixed for text in each.paragraphs))

    def size(self, split: Split) -> int:
        """Number of questions in a split."""
        return len(self.asked.get(split, ()))

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of a split."""
        if not 0 <= index < self.size(split):
            raise IndexError(f"task index must be 0 to {self.size(split) - 1} in split {split!r}, got {index}")
        question = self.asked[split][index].question
        return Task(
            id=f"reading/{split}/{question.id}",
            prompt=ask(question.text, self.style),
            objectives=(Objective(question.text, question.answers),),
            max_turns=turn_budget(len(self._parts(split, index)), self.turns_per_part),
            data={"split": split, "index": index, "hops": (question.hops,)},
        )

    def env(self, task: Task) -> Env:
        """Return a fresh environment for a task of this source."""
        return ReadingEnv(task, self._parts(task.data["split"], task.data["index"]), self.reward, self.variant)

    def sample_replies(self) -> list[str]:
        """As `ReadingTasks.sample_replies`, of the first split that has documents."""
        split = next((each for each in SPLITS if self.size(each)), SPLITS[0])
        documents = [self._parts(split, index) for index in range(min(NUM_SAMPLES, self.size(split)))]
        return [reply for document in documents for reply in sample_of(document)]

    def _parts(self, split: Split, index: int) -> list[str]:
        asked = self.asked[split][index]
        return parts(asked.paragraphs if asked.whole else self._mixed(split, index, asked), self.part)

    def _mixed(self, split: Split, index: int, asked: Asked) -> list[str]:
        """What has to be read, its own distractors and those of others up to the length, shuffled."""
        rng = random.Random(f"reading/{self.seed}/{split}/{index}")
        own = list(asked.paragraphs)
        chosen, rest = own[: asked.num_support], own[asked.num_support :]
        rng.shuffle(rest)
        missing = rng.choice(self.lengths) - sum(map(num_tokens, chosen))
        for text in chain(rest, self._others(rng, set(own))):
            if missing <= 0:
                break
            chosen.append(text)
            missing -= num_tokens(text)
        rng.shuffle(chosen)
        return chosen

    def _others(self, rng: random.Random, known: set[str]) -> Iterator[str]:
        """Paragraphs of other rows, each once, as many as there are."""
        while len(known) < len(self.pool):
            if (text := rng.choice(self.pool)) not in known:
                known.add(text)
                yield text


def split_asked(
    questions: Sequence[str], val: Sequence[str] | None = None, test: Sequence[str] | None = None
) -> dict[Split, list[Asked]]:
    """Questions with their documents by split.

    Args:
        questions: Paths of the training questions.
        val: Paths of the validation questions; None parts a tenth of the rows of `questions` off, by their place.
        test: The same for the test.
    """
    splits: dict[Split, list[Asked]] = {"train": [], "val": [], "test": []}
    given: dict[Split, Sequence[str] | None] = {"train": questions, "val": val, "test": test}
    for asked in (each for path in questions for each in read_asked(path)):
        split = hashed_split(asked.row)
        splits["train" if given[split] is not None else split].append(asked)
    for split in ("val", "test"):
        splits[split] += [each for path in given[split] or () for each in read_asked(path)]
    return splits
