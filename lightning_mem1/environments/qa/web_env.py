"""Questions answered by searching the web: the actions are ``search[query]`` and ``answer[answer1; answer2]``.

Whatever a page says is data: tags in it are made harmless when the reply is written, like those of any environment.
"""

from __future__ import annotations

from collections.abc import Sequence

from lightning_mem1.environments.qa.env import RetrievalEnv
from lightning_mem1.environments.qa.retrieval.passage import Passage, Retriever
from lightning_mem1.environments.qa.scoring import Reward, Variant
from lightning_mem1.types import Task


class WebEnv(RetrievalEnv):
    """Single-use environment of one task of questions: a `RetrievalEnv` whose replies are lines with addresses.

    Args:
        task: The task; its objectives hold the accepted answers.
        web: Finds results, e.g. `retrieval.web.Web`; shared by any number of environments.
        top_k: Results of a reply.
        reward: What the answer pays, see `final_answer`.
        variant: How answers are compared.
    """

    def __init__(
        self, task: Task, web: Retriever, top_k: int = 10, reward: Reward = "em", variant: Variant = "fixed"
    ) -> None:
        super().__init__(task, web, top_k, reward=reward, variant=variant)

    def write(self, passages: Sequence[Passage]) -> str:
        """What was found, as the agent reads it."""
        return write_results(passages)


def write_results(results: Sequence[Passage]) -> str:
    """Results as an agent reads them, one a line: ``1 Title: snippet (link)``."""
    if not results:
        return "No result found."
    lines = (
        f"{k} {each.title}: {each.text}{f' ({each.url})' if each.url else ''}" for k, each in enumerate(results, 1)
    )
    return "\n".join(" ".join(line.split()) for line in lines)
