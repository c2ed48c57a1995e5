"""Questions answered by searching a corpus: the actions are ``search[query]`` and ``answer[answer1; answer2]``.

What a retriever cannot find out it must not make up: when it fails for good the exception ends the trajectory.
"""

from __future__ import annotations

from collections.abc import Sequence

from lightning_mem1.context.tags import read_action
from lightning_mem1.environments.qa.retrieval.passage import Passage, Retriever, Style, write_passages
from lightning_mem1.environments.qa.scoring import Reward, Variant, final_answer
from lightning_mem1.types import StepResult, Task

FINAL = "answer"


class RetrievalEnv:
    """Single-use environment of one task of questions.

    Args:
        task: The task; its objectives hold the accepted answers.
        retriever: Finds passages; shared by any number of environments.
        top_k: Passages of a reply.
        style: How passages are written, see `write_passages`.
        reward: What the answer pays, see `final_answer`.
        variant: How answers are compared.
    """

    def __init__(
        self,
        task: Task,
        retriever: Retriever,
        top_k: int = 3,
        style: Style = "compact",
        reward: Reward = "em",
        variant: Variant = "fixed",
    ) -> None:
        self.task, self.retriever, self.top_k = task, retriever, top_k
        self.style, self.reward, self.variant = style, reward, variant
        self.num_steps = 0
        self.over = False
        self._shown = ""

    def observe(self) -> str:
        """Return the latest reply; nothing before the first search."""
        return self._shown

    def step(self, action: str) -> StepResult:
        """Carry out one action, see `act`."""
        result = self.act(action)
        self._shown = result.information
        return result

    def act(self, action: str) -> StepResult:
        """Search, or give the final answer.

        A search in the last turn is not carried out: nobody would read its result.

        Raises:
            RetrievalError: the retriever failed for good.
        """
        self.num_steps += 1
        if self.over:
            return StepResult("", done=True, valid=False, info={"invalid": "the episode is over"})
        named = read_action(action)
        if named is None:
            return StepResult("Nothing was searched.", valid=False)
        name, argument = named
        if name == FINAL:
            self.over = True
            return final_answer(argument, self.task, self.reward, self.variant)
        if self.num_steps >= self.task.max_turns:
            return StepResult("", valid=False, info={"invalid": "a search in the last turn"})
        (passages,) = self.retriever.search([argument], self.top_k)
        info = {"query": argument, "search": 1.0, "num_passages": float(len(passages))}
        return StepResult(self.write(passages), info=info)

    def write(self, passages: Sequence[Passage]) -> str:
        """What was found, as the agent reads it."""
        return write_passages(passages, self.style)
