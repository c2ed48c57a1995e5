"""Tasks of one document and one question: over generated documents."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, Literal, get_args

from lightning_mem1.checks import SEED, Range, Ranges, check_choice, check_numbers
from lightning_mem1.environments.qa.scoring import Reward, Variant
from lightning_mem1.environments.reading.document import sentences
from lightning_mem1.environments.reading.env import ReadingEnv
from lightning_mem1.environments.reading.parts import parts, shown
from lightning_mem1.environments.reading.scripted_reader import EXPERT_READER, play
from lightning_mem1.environments.reading.stories import KINDS, Kind, Story, story
from lightning_mem1.types import Env, Objective, Split, Task

SIZES: dict[Split, int] = {"train": 1_000_000, "val": 1000, "test": 1000}
NUM_SAMPLES = 3  # documents
SPARE_TURNS = 2  # one for the answer, one for a turn that goes wrong
MAX_LENGTH = 10_000_000
Style = Literal["compact", "explained"]
STYLES: tuple[Style, ...] = get_args(Style)
EXPLAINED = """A document arrives part by part. Write what you need into your memory, and ask for the next part with \
the action read. You may answer at any time; later parts may change the answer, and the last one ends with "The end."
Question: {}"""


LENGTHS: Ranges = {  # tokens of a document and of a part of it
    "length": Range(1, MAX_LENGTH),
    "part": Range(1),
    "turns_per_part": Range(1, 1000),
}


def turn_budget(num_parts: int, turns_per_part: int) -> int:
    """Turns of a task: those for its parts, one for the answer and one that may go wrong."""
    return num_parts * turns_per_part + SPARE_TURNS


class ReadingTasks:
    """Generated documents; satisfies `types.TaskSource`. A task is a function of (seed, split, index) and the settings.

    Args:
        kinds: Which questions, drawn evenly, see `stories`; None for all.
        length: Tokens of a document (words and punctuation marks), or several numbers, drawn evenly.
        part: Tokens of a part.
        turns_per_part: Turns for each part; two more are for the answer and one that goes wrong. 2 or more for memory
            modes whose own actions cost turns.
        style: ``compact`` (the question alone) or ``explained`` (what to do as well, for chat models).
        reward: What an answer pays: em or f1.
        variant: How answers are compared.
        seed: Of the documents.

    Raises:
        ValueError: a setting is out of its range.
    """

    ranges: ClassVar[Ranges] = {**LENGTHS, "seed": SEED}

    def __init__(
        self,
        kinds: Sequence[Kind] | None = None,
        length: int | Sequence[int] = 1000,
        part: int = 250,
        turns_per_part: int = 1,
        *,
        style: Style = "compact",
        reward: Reward = "em",
        variant: Variant = "fixed",
        seed: int = 0,
    ) -> None:
        check_numbers("data.source", ReadingTasks, locals())
        self.kinds: tuple[Kind, ...] = tuple(KINDS if kinds is None else kinds)
        self.lengths = check_lengths(length)
        self.part, self.style, self.reward, self.variant, self.seed = part, style, reward, variant, seed
        self.turns_per_part = turns_per_part
        if not self.kinds:
            raise ValueError(f"data.kinds is empty: expected some of {', '.join(KINDS)}; null for all")
        for kind in self.kinds:
            check_choice("kind of question", kind, KINDS, "data.kinds")
        check_choice("style", style, STYLES, "data.style")

    def size(self, split: Split) -> int:
        """Number of tasks in a split."""
        return SIZES[split]

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of a split."""
        if not 0 <= index < SIZES[split]:
            raise IndexError(f"task index must be 0 to {SIZES[split] - 1} in split {split!r}, got {index}")
        kind, length, found = self._story(split, index)
        return Task(
            id=f"reading/{split}/{kind}/{length}/{index}",
            prompt=ask(found.question, self.style),
            objectives=(Objective(found.question, found.answers),),
            max_turns=turn_budget(len(self._parts(split, index)), self.turns_per_part),
            data={"split": split, "index": index, "kind": kind, "length": length},
        )

    def env(self, task: Task) -> Env:
        """Return a fresh environment for a task of this source."""
        return ReadingEnv(task, self._parts(task.data["split"], task.data["index"]), self.reward, self.variant)

    def sample_replies(self) -> list[str]:
        """The parts of a few documents as an agent is shown them, to see whether they fit into a reply."""
        documents = [self._parts("train", index) for index in range(NUM_SAMPLES)]
        return [reply for document in documents for reply in sample_of(document)]

    def baselines(self, split: Split, indices: Sequence[int]) -> dict[str, float]:
        """Mean reward of the scripted reader, which keeps only what the question names."""
        tasks = [self.task(split, index) for index in indices]
        return {"reader": sum(play(self.env(task), task, EXPERT_READER).reward for task in tasks) / max(1, len(tasks))}

    def _story(self, split: Split, index: int) -> tuple[Kind, int, Story]:
        return _story(self.seed, split, index, self.kinds, self.lengths)

    def _parts(self, split: Split, index: int) -> tuple[str, ...]:
        return _parts(self.seed, split, index, self.kinds, self.lengths, self.part)


def _story(
    seed: int, split: Split, index: int, kinds: Sequence[Kind], lengths: Sequence[int]
) -> tuple[Kind, int, Story]:
    rng = random.Random(f"reading/{seed}/{split}/{index}")
    kind, length = rng.choice(kinds), rng.choice(lengths)
    return kind, length, story(kind, rng)


@lru_cache(maxsize=64)  # a group reads one document
def _parts(
    seed: int, split: Split, index: int, kinds: tuple[Kind, ...], lengths: tuple[int, ...], part: int
) -> tuple[str, ...]:
    _, length, found = _story(seed, split, index, kinds, lengths)
    rest = random.Random(f"reading/{seed}/{split}/{index}/{length}")
    return tuple(parts(sentences(found, length, rest), part))


def sample_of(parts: Sequence[str]) -> list[str]:
    """Up to twenty parts of a document, as they are shown."""
    return [shown(parts, number) for number in range(0, len(parts), max(1, len(parts) // 20))]


def check_lengths(length: int | Sequence[int]) -> tuple[int, ...]:
    """The lengths that a setting means; raises ValueError for none and for one out of range."""
    lengths = (length,) if isinstance(length, int) else tuple(length)
    if not lengths or not all(1 <= each <= MAX_LENGTH for each in lengths):
        raise ValueError(
            f"data.length must be 1 to {MAX_LENGTH:,} tokens, or a list of such numbers, got {length}; set data.length"
        )
    return lengths


def ask(question: str, style: Style) -> str:
    """The question as the agent reads it."""
    return EXPLAINED.format(question) if style == "explained" else question
