"""How the tasks of the scripted experts fall into parts, for the memory mode that works on a part in a branch."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_mem1.context.tags import Tags, parse_turn, read_action
from lightning_mem1.environments.qa.scripted_researcher.lookup import UNKNOWN
from lightning_mem1.environments.qa.scripted_researcher.notation import known_answers, read_state
from lightning_mem1.environments.reading.env import ReadingEnv
from lightning_mem1.warmstart.habits import Progress, Subtasks

QUESTIONS = 3  # in a branch: of one question, the turns that open and close it hold more than they drop
PARTS = 3


def of_questions(asked: Sequence[str], tags: Tags, first: int = 1) -> Subtasks:
    """A researcher's: the questions, those answered by now as its state lists them.

    Args:
        asked: The questions, without their numbers.
        tags: The world's.
        first: Number of the first one.
    """

    def progress(turn: str) -> Progress:
        parsed = parse_turn(turn, tags)
        memory = read_state(parsed.internal_state, len(asked), first)
        done = known_answers(memory)

        def found(since: int) -> str:
            known = [f"{first + n} {answer}" for n, answer in enumerate(memory.answers) if answer != UNKNOWN]
            return " ".join(known[since:]) or "none"

        ahead = "" if _answers(parsed.action, tags) or done == len(asked) else f"{first + done} {asked[done].lower()}"
        return Progress(done, ahead, found)

    return Subtasks(progress, QUESTIONS)


def of_document(env: ReadingEnv, tags: Tags) -> Subtasks:
    """A reader's: the parts of its document."""

    def progress(turn: str) -> Progress:
        parsed = parse_turn(turn, tags)
        ahead = "" if _answers(parsed.action, tags) else "next"
        return Progress(env.num_read, ahead, lambda since: parsed.internal_state)

    return Subtasks(progress, PARTS)


def _answers(action: str | None, tags: Tags) -> bool:
    return (read_action(action or "") or ("",))[0] == tags.names[-1]
