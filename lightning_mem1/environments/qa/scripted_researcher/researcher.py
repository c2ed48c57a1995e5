"""A scripted researcher that writes MEM1 turns: faultless in format and copying, fallible in its decisions.

It sees what a policy in memory mode ``mem1`` sees: the questions, its own previous turn and the last information. All
it knows about earlier turns is what it wrote into its internal state::

    <think> the red door by ada kesh; 1 in torham; 2 ? by ada kesh</think><search> ada kesh</search>
            what was just read        answers so far

The word before an answer is the one before it in the note ("based in torham"): copying continues from a word that stood
there already, which is what small models learn first. A number or a question mark two places before a value says
where it begins.

The answers can be noted otherwise, see `notation`. It reads the questions of `quiz` only. A policy cloned from it
starts as a mixture of good and bad decisions that RL can sharpen.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from lightning_mem1.checks import SHARE, Ranges
from lightning_mem1.context.tags import QA_TAGS, Tags, parse_turn
from lightning_mem1.environments.qa.encyclopedia.questions import FOLLOW_UP, Asked, read_question
from lightning_mem1.environments.qa.encyclopedia.world import Relation
from lightning_mem1.environments.qa.scripted_researcher.lookup import (
    GIVEN_UP,
    LINK,
    NOT_FOUND,
    START,
    UNKNOWN,
    Notebook,
    due,
    fact_in,
    is_about,
    read_passages,
    resolve,
    year_in,
)
from lightning_mem1.environments.qa.scripted_researcher.notation import (
    NUMBERED,
    Notation,
    known_answers,
    read_state,
    write_answers,
    write_state,
)
from lightning_mem1.types import Env, Task


@dataclass(frozen=True)
class ResearcherSkill:
    """How well a researcher decides; every number is a probability.

    Attributes:
        choice: Reads the passage about the thing it searched for; otherwise another one of the reply.
        hop: Searches on for the next fact of a chain; otherwise takes what it has for the answer.
        early: In each turn with an answer, gives up the questions that are still open.
        query: Searches for the name alone; otherwise for the whole question.
    """

    choice: float = 0.7
    hop: float = 0.7
    early: float = 0.05
    query: float = 0.8
    ranges: ClassVar[Ranges] = dict.fromkeys(("choice", "hop", "early", "query"), SHARE)


EXPERT_RESEARCHER = ResearcherSkill(choice=1.0, hop=1.0, early=0.0, query=1.0)


class ScriptedResearcher:
    """Writes one turn at a time; keeps nothing between turns but its random generator, and in `react` the answers.

    Args:
        rng: Draws its good and bad moments.
        skill: How well it decides.
        tags: Names of the blocks.
        notation: How its state lists the answers, see `tasks.notation`.
        first: Number of the first question.
        carried: Entries that the list of the first state has before it, ``1 odo lin 2 trier``; not in `every`.
    """

    def __init__(
        self,
        rng: random.Random,
        skill: ResearcherSkill | None = None,
        tags: Tags = QA_TAGS,
        notation: Notation = "every",
        first: int = 1,
        carried: str = "",
    ) -> None:
        self.rng, self.skill, self.tags, self.notation = rng, skill or ResearcherSkill(), tags, notation
        self.first, self.carried = first, carried
        self.kept: Notebook | None = None  # in `react`: what is in all turns so far, and the last one as it was meant
        self.meant = ""

    def turn(self, questions: Sequence[str], previous: str | None, information: str, turns_left: int) -> str:
        """Write the next turn.

        Args:
            questions: The questions, without their numbers.
            previous: Text of the turn before, None in the first one.
            information: The reply to it.
            turns_left: Turns left, this one included.

        Returns:
            ``<think>...</think>`` and a search or the answers, in the names of the tags.
        """
        lost = previous is None or parse_turn(previous, self.tags).action is None  # nothing was searched: begin again
        if lost and self.meant and turns_left > 1:
            return self.meant  # the history still has what it was read from
        memory = self._remember(None if lost else previous, len(questions))
        if previous is None:
            memory.carried = self.carried
        query = ""
        if not lost and UNKNOWN in memory.answers:
            query = self._read(questions, memory, information)
        open_ones = UNKNOWN in memory.answers
        if open_ones and not query:
            query = self._begin(questions, memory)
        begun = any(answer != UNKNOWN for answer in memory.answers)
        if turns_left <= 1 or not query or (begun and self.rng.random() < self.skill.early):
            return self._write(memory, questions, final=True)
        memory.query = query
        return self._write(memory, questions, final=False)

    def _read(self, questions: Sequence[str], memory: Notebook, information: str) -> str:
        """Read the reply for the open question: note a fact, fill in an answer, or return the next query."""
        number = memory.answers.index(UNKNOWN)
        asked = read_question(questions[number])
        if asked is None:
            memory.answers[number] = GIVEN_UP
            return ""
        earlier = memory.note
        name, relation, rest = due(asked, memory)
        found = self._look_up(name, relation, read_passages(information))
        if found is None:
            return self._again(memory, number, name, relation)
        title, value = found
        memory.note = f"{title} {relation.phrase} {value}"
        memory.links[number] = relation.phrase.split()[-1]
        if len(asked.names) == 2:
            return self._compare(asked, memory, number, name, earlier, value)
        if rest and self.rng.random() < self.skill.hop:
            return value
        memory.answers[number] = value
        return ""

    def _compare(self, asked: Asked, memory: Notebook, number: int, name: str, earlier: str, value: str) -> str:
        """With one year read search for the other thing; with both name the earlier one."""
        first, second = (each.lower() for each in asked.names)
        if name == first:
            return second if self.rng.random() < self.skill.hop else self._decide(memory, number, first)
        before = re.search(r" (\d+)$", earlier)
        earlier_one = before is not None and int(before[1]) <= year_in(value)
        return self._decide(memory, number, first if earlier_one else second)

    def _decide(self, memory: Notebook, number: int, answer: str) -> str:
        memory.answers[number], memory.links[number] = answer, LINK
        return ""

    def _again(self, memory: Notebook, number: int, name: str, relation: Relation) -> str:
        """Search once more with the words of the fact, then give the question up."""
        if memory.note.startswith(NOT_FOUND):
            memory.note = START
            return self._decide(memory, number, GIVEN_UP)
        memory.note = f"{NOT_FOUND} {name}"
        return f"{name} {relation.phrase}"

    def _look_up(self, name: str, relation: Relation, passages: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
        """The passage about the thing and the fact in it; or, in a bad moment, the same fact of something else."""
        facts = [(title, num_given, fact_in(relation, num_given)) for title, num_given in passages]
        about = [(title, num_given, fact) for title, num_given, fact in facts if is_about(name, title, num_given)]
        if self.rng.random() >= self.skill.choice:
            about = [each for each in facts if each[2] and each not in about] or about
        return next(((title, fact) for title, _, fact in about if fact), None)

    def _begin(self, questions: Sequence[str], memory: Notebook) -> str:
        """The query that opens the first open question."""
        while UNKNOWN in memory.answers:
            number = memory.answers.index(UNKNOWN)
            asked = read_question(questions[number])
            name = resolve(asked.names[0], memory) if asked else GIVEN_UP
            if name != GIVEN_UP:
                return self._opening(questions[number], name)
            memory.answers[number] = GIVEN_UP
        return ""

    def _opening(self, question: str, name: str) -> str:
        """The first query of a question about `name`.

        In `next` a question that needs an earlier answer is searched for by that answer's number and the answer,
        ``answer 1 odo lin``: the number finds the entry of the list, so that this step is local as the others are.
        """
        if self.notation in NUMBERED and (needed := FOLLOW_UP.search(question)):
            return f"{needed[0].lower()} {name}"
        return name if self.rng.random() < self.skill.query else question.lower().rstrip("?")

    def _remember(self, previous: str | None, num_questions: int) -> Notebook:
        if self.kept is not None:
            return self.kept
        if previous is None:
            return Notebook(START, [UNKNOWN] * num_questions, first=self.first)
        parsed = parse_turn(previous, self.tags)
        memory = read_state(parsed.internal_state, num_questions, self.first)
        found = re.fullmatch(r"\w+\[(.*)\]", parsed.action or "", re.DOTALL)
        memory.query = found[1] if found else ""
        return memory

    def _write(self, memory: Notebook, questions: Sequence[str], final: bool) -> str:
        search, answer = self.tags.names[0], self.tags.names[-1]
        state = write_state(memory, questions, self.notation, final)
        text = f"<{self.tags.internal_state}> {state}</{self.tags.internal_state}>"
        if final:
            text += self.tags.written(answer, f" {write_answers(memory, self.notation)}")
        else:
            text += self.tags.written(search, f" {memory.query}")
        if self.notation == "react":
            self.kept, self.meant = memory, text
            memory.num_given = known_answers(memory)
        return text


@dataclass
class Research:
    """A played episode.

    Attributes:
        texts: The turns as written.
        replies: What the environment replied to each.
        reward: Total reward.
        info: The last step's `info`, empty without an answer.
    """

    texts: list[str] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    reward: float = 0.0
    info: dict[str, object] = field(default_factory=dict)


def play(
    env: Env,
    task: Task,
    skill: ResearcherSkill | None = None,
    seed: int = 0,
    tags: Tags = QA_TAGS,
    notation: Notation = "every",
) -> Research:
    """Let a researcher play one episode."""
    researcher, done = ScriptedResearcher(random.Random(seed), skill, tags, notation), Research()
    previous, information = None, env.observe()
    questions = [objective.question for objective in task.objectives]
    for turns_left in range(task.max_turns, 0, -1):
        previous = researcher.turn(questions, previous, information, turns_left)
        result = env.step(parse_turn(previous, tags).action or "")
        information = result.information
        done.texts.append(previous)
        done.replies.append(information)
        done.reward += result.reward
        if result.done:
            done.info = dict(result.info)
            break
    return done
