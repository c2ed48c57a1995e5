"""A document that is read part by part: the actions are ``read[next]`` and ``answer[answer]``."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_mem1.context.tags import read_action
from lightning_mem1.environments.qa.scoring import Reward, Variant, final_answer
from lightning_mem1.environments.reading.parts import shown
from lightning_mem1.types import StepResult, Task

READ, FINAL = "read", "answer"


class ReadingEnv:
    """Single-use environment of one document and its question.

    A part is shown once. The agent may answer at any time; what comes later in the document may still change what is
    right.

    Args:
        task: The task; its objectives hold the accepted answers.
        parts: The document.
        reward: What the answer pays, see `final_answer`.
        variant: How answers are compared.
    """

    def __init__(self, task: Task, parts: Sequence[str], reward: Reward = "em", variant: Variant = "fixed") -> None:
        self.task, self.parts, self.reward, self.variant = task, list(parts), reward, variant
        self.num_read = 0
        self.over = False
        self._shown = ""

    def observe(self) -> str:
        """Return the latest part; nothing before the first one."""
        return self._shown

    def step(self, action: str) -> StepResult:
        """Show the next part, or take the answer."""
        result = self._act(action)
        self._shown = result.information
        return result

    def _act(self, action: str) -> StepResult:
        if self.over:
            return StepResult("", done=True, valid=False, info={"invalid": "the episode is over"})
        name, argument = read_action(action) or ("", "")
        if name == FINAL:
            self.over = True
            end = final_answer(argument, self.task, self.reward, self.variant)
            return StepResult("", end.reward, done=True, info={**end.info, "read": self.num_read / len(self.parts)})
        if name != READ:
            return StepResult("Nothing was read.", valid=False, info={"invalid": "neither read nor answer"})
        if self.num_read == len(self.parts):
            ended = "There is nothing left to read."
            return StepResult(ended, valid=False, info={"invalid": "read behind the end"})
        self.num_read += 1
        return StepResult(shown(self.parts, self.num_read - 1))
