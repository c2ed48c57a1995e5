"""A scripted reader that writes MEM1 turns: faultless in format and copying, fallible in its decisions.

It sees what a policy in memory mode ``mem1`` sees: the question, its own previous turn and the latest part. Its state
says what it knows in the words of the document, ``?`` for what is not known yet::

    <think>the home of Odo Lin is Torham; the river of Torham is ?</think><read>next</read>

A small policy copies by looking for the last place with the same words. The latest part is behind the state, so the
last place is the newest word on a fact, whether the part has it or only the memory.

It reads the questions of `stories` only. What it gets wrong is when to answer (`ReaderSkill`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lightning_mem1.checks import SHARE, Ranges
from lightning_mem1.context.formats import READING_TAGS
from lightning_mem1.context.tags import Tags, parse_turn
from lightning_mem1.environments.reading.notes import Notes, notes_on
from lightning_mem1.environments.reading.parts import END
from lightning_mem1.types import Env, Task

NO_ANSWER = "none"


@dataclass(frozen=True)
class ReaderSkill:
    """How well a reader decides; every number is a probability.

    Attributes:
        early: In each turn that knows an answer before the end: gives it at once.
        miss: Overlooks what a part says.
    """

    early: float = 0.3
    miss: float = 0.02
    ranges: ClassVar[Ranges] = {"early": SHARE, "miss": SHARE}


EXPERT_READER = ReaderSkill(early=0.0, miss=0.0)


class ScriptedReader:
    """Writes one turn at a time; keeps nothing between turns but its random generator.

    Args:
        rng: Draws its good and bad moments.
        skill: How well it decides.
        tags: Names of the blocks; two actions, to read and to answer.
    """

    def __init__(self, rng: random.Random, skill: ReaderSkill | None = None, tags: Tags = READING_TAGS) -> None:
        self.rng, self.skill, self.tags = rng, skill or ReaderSkill(), tags

    def turn(self, question: str, previous: str | None, information: str, turns_left: int) -> str:
        """Write the next turn.

        Args:
            question: What is asked.
            previous: Text of the turn before, None in the first one.
            information: The reply to it.
            turns_left: Turns left, this one included.

        Returns:
            ``<think>...</think>`` and an action, in the names of the tags.

        Raises:
            ValueError: the question is none of `stories`.
        """
        notes = notes_on(question)
        if previous is not None:
            notes.recall(parse_turn(previous, self.tags).internal_state)
        if self.rng.random() >= self.skill.miss:
            notes.read(information)
        ended = information.rstrip().endswith(END) or turns_left <= 1
        return self._written(notes, ended or (notes.known and self.rng.random() < self.skill.early))

    def _written(self, notes: Notes, final: bool) -> str:
        state, (read, answer) = self.tags.internal_state, self.tags.names
        known = notes.answer if notes.known else NO_ANSWER
        action = self.tags.written(answer, known) if final else self.tags.written(read, "next")
        return f"<{state}>{notes.written}</{state}>{action}"


@dataclass
class Played:
    """An episode of the scripted reader: its turns, the replies and how it ended."""

    texts: list[str] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    reward: float = 0.0
    info: dict[str, Any] = field(default_factory=dict)


def play(env: Env, task: Task, skill: ReaderSkill | None = None, seed: int = 0) -> Played:
    """Play a task with the scripted reader."""
    reader, done = ScriptedReader(random.Random(seed), skill), Played()
    previous, information = None, env.observe()
    question = task.objectives[0].question
    for turns_left in range(task.max_turns, 0, -1):
        previous = reader.turn(question, previous, information, turns_left)
        result = env.step(parse_turn(previous, READING_TAGS).action or "")
        information = result.information
        done.texts.append(previous)
        done.replies.append(information)
        done.reward += result.reward
        if result.done:
            done.info = dict(result.info)
            break
    return done
