"""Questions answered by searching the web: the actions are ``search[query]`` and ``answer[answer1; answer2]``.

Whatever a page says is data: tags in it are made harmless when the reply is written, like those of any environment.
"""

from __future__ import annotations

from collections.abc import Sequence

from lightning_mem1.retrieval.passage import Passage, Retriever
from lightning_mem1.scoring import RewardKind, Variant, final_answer
from lightning_mem1.text import read_action
from lightning_mem1.types import StepResult, Task


class WebEnv:
    """Single-use environment of one task of questions.

    Args:
        task: The task; its objectives hold the accepted answers.
        web: Finds results, e.g. `retrieval.web.Web`; shared by any number of environments.
        top_k: Results of a reply.
        reward: What the answer pays, see `final_answer`.
        variant: How answers are compared.
    """

    def __init__(
        self, task: Task, web: Retriever, top_k: int = 10, reward: RewardKind = "em", variant: Variant = "fixed"
    ) -> None:
        self.task, self.web, self.top_k = task, web, top_k
        self.reward, self.variant = reward, variant
        self.num_steps = 0
        self.over = False
        self._shown = ""

    def observe(self) -> str:
        """Return the latest reply; nothing before the first search."""
        return self._shown

    def step(self, action: str) -> StepResult:
        """Search, or give the final answer; a search in the last turn is not carried out.

        Raises:
            RetrievalError: the search failed for good.
        """
        self.num_steps += 1
        name, argument = read_action(action) or ("", "")
        if self.over:
            result = StepResult("", done=True, valid=False, info={"invalid": "the episode is over"})
        elif name == "answer":
            self.over = True
            result = final_answer(argument, self.task, self.reward, self.variant)
        elif not name:
            result = StepResult("Nothing was searched.", valid=False)
        elif self.num_steps >= self.task.max_turns:
            result = StepResult("", valid=False, info={"invalid": "a search in the last turn"})
        else:
            (found,) = self.web.search([argument], self.top_k)
            info = {"query": argument, "search": 1.0, "num_passages": float(len(found))}
            result = StepResult(write_results(found), info=info)
        self._shown = result.information
        return result


def write_results(results: Sequence[Passage]) -> str:
    """Results as an agent reads them, one a line: ``1 Title: snippet (link)``."""
    if not results:
        return "No result found."
    lines = (
        f"{k} {each.title}: {each.text}{f' ({each.url})' if each.url else ''}" for k, each in enumerate(results, 1)
    )
    return "\n".join(" ".join(line.split()) for line in lines)
