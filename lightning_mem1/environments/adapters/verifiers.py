"""Environments of verifiers (github.com/PrimeIntellect-ai/verifiers) as tasks: its data set asks, its rubric pays.

Needs the extra ``verifiers``, version 0.3: 0.4 has no `vf.Environment` any more.

```yaml
source:
  class_path: lightning_mem1.environments.adapters.verifiers.VerifiersTasks
  init_args: {environment: my_environments.load_environment, args: {difficulty: easy}}
```
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from lightning_mem1.checks import ANY_SIGN, Range, Ranges, check_numbers
from lightning_mem1.environments.adapters.extras import needed
from lightning_mem1.environments.adapters.game_env import GameEnv
from lightning_mem1.environments.adapters.verifiers_bridge import Rollout, written
from lightning_mem1.io.dotted_names import imported
from lightning_mem1.types import Env, Objective, Split, Task

HELD_OUT = 10  # one row of so many is for validation, one for the test, where there are no rows for evaluation


class VerifiersTasks:
    """One task per row of the environment's data set; satisfies `types.TaskSource`.

    Validation and test take one half each of the rows for evaluation; without such rows the last two tenths of the
    data set.

    Args:
        environment: Id of an installed environment, as `vf.load_environment` takes it, or the dotted name of a
            function that returns one.
        args: Its arguments.
        template: What the environment gets of a turn that calls no tool: ``{action}`` stands for the action. An
            environment whose parser looks for tags takes them here.
        success_at: Reward from which on an episode is a success.
        max_turns: Turns at most; an environment that allows fewer keeps its own number.

    Raises:
        ValueError: one line: the package or the environment is missing, or it cannot be played turn by turn.
    """

    ranges: ClassVar[Ranges] = {"max_turns": Range(1), "success_at": ANY_SIGN}

    def __init__(
        self,
        environment: str,
        args: dict[str, Any] | None = None,
        *,
        template: str = "{action}",
        success_at: float = 1.0,
        max_turns: int = 20,
    ) -> None:
        check_numbers("data.source", VerifiersTasks, locals())
        if "{action}" not in template:
            raise ValueError(f"no place for the action: expected {{action}} in data.source.template, got {template!r}")
        self.name, self.args, self.template = environment, dict(args or {}), template
        self.success_at, self.max_turns = success_at, max_turns
        self._loaded: Any = None
        needed("verifiers", "verifiers>=0.3,<0.4", "verifiers", "verifiers")

    @property
    def environment(self) -> Any:
        """The `vf.Environment`, loaded at first use.

        Raises:
            ValueError: it cannot be loaded, or not be played turn by turn.
        """
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def size(self, split: Split) -> int:
        """Number of rows in a split."""
        return len(self._rows(split)[1])

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of a split."""
        name, rows = self._rows(split)
        if not 0 <= index < len(rows):
            raise IndexError(f"task index must be 0 to {len(rows) - 1} in split {split!r}, got {index}")
        row = self._table(name)[rows[index]]
        prompt = written(row["prompt"])
        answer = row.get("answer")
        question = Objective(prompt, (answer,) if isinstance(answer, str) and answer else ())
        own = getattr(self.environment, "max_turns", 0)
        turns = own if 0 < own < self.max_turns else self.max_turns
        return Task(f"{self.name}/{split}/{index}", prompt, (question,), turns, {"table": name, "row": rows[index]})

    def env(self, task: Task) -> Env:
        """Return a fresh episode for a task of this source."""
        row = self._table(task.data["table"])[task.data["row"]]
        return GameEnv(Rollout(self.environment, row, task.prompt, self.template), self.success_at)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}  # another process loads its own

    def _rows(self, split: Split) -> tuple[str, Sequence[int]]:
        """The table of a split and its rows in it."""
        number = len(self._table("train"))
        if self.environment.eval_dataset is None:
            part = max(1, number // HELD_OUT) if number > 2 else 0
            ends = [0, number - 2 * part, number - part, number]
            at = ("train", "val", "test").index(split)
            return "train", range(ends[at], ends[at + 1])
        if split == "train":
            return "train", range(number)
        held_out = len(self._table("eval"))
        middle = (held_out + 1) // 2
        return "eval", range(middle) if split == "val" else range(middle, held_out)

    def _table(self, name: str) -> Any:
        with _quiet():
            return self.environment.get_eval_dataset() if name == "eval" else self.environment.get_dataset()

    def _load(self) -> Any:
        verifiers = needed("verifiers", "verifiers>=0.3,<0.4", "verifiers", "verifiers")
        if not hasattr(verifiers, "load_environment"):
            raise ValueError(
                "verifiers is too new: expected a version that has vf.Environment, got "
                f"{getattr(verifiers, '__version__', 'another')}; pip install 'lightning-mem1[verifiers]'"
            )
        load = imported(self.name, "function", "data.source.environment") if "." in self.name else None
        try:
            with _quiet():
                made = load(**self.args) if load else verifiers.load_environment(self.name, **self.args)
        except Exception as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(
                "no such verifiers environment: expected the id of an installed one, or the dotted name of a function "
                f"that returns one, got '{self.name}' ({why[:300]}); set data.source.environment or data.source.args"
            ) from None
        return self._checked(made, verifiers)

    def _checked(self, made: Any, verifiers: Any) -> Any:
        if not isinstance(made, verifiers.Environment):
            raise ValueError(
                f"no verifiers environment: expected {self.name} to return a vf.Environment, got "
                f"{type(made).__name__}; set data.source.environment"
            )
        with _quiet():
            made.build_eval_dataset()
        if made.requires_group_rollouts:
            raise ValueError(
                f"the rubric of {self.name} compares episodes of a group: expected rewards of single episodes, got "
                "rewards of groups; take another rubric"
            )
        if isinstance(getattr(made, "max_turns", None), int) and not 0 < made.max_turns <= self.max_turns:
            made.max_turns = self.max_turns  # so that it ends, and pays, by itself
        return made


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No bars while a data set is put into shape, and no second word on what is raised."""
    import datasets

    logger, bars = logging.getLogger("verifiers"), not datasets.are_progress_bars_disabled()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    if bars:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


async def play(task: Task, client: Any, env: Any) -> dict[str, Any]:
    """An agent for `AgentData`: the environment's own loop calls the policy through OpenAI's client.

    Its chat messages and tool calls then are what the policy sees, in memory mode ``recorded``.
    """
    clients = needed("verifiers.clients", "verifiers>=0.3,<0.4", "verifiers", "verifiers")
    environment, row = env.game.environment, dict(env.game.row)
    state = await environment.rollout(row, clients.OpenAIChatCompletionsClient(client), "policy", {})
    if state.get("error") is not None:
        raise RuntimeError(f"{type(state['error']).__name__}: {state['error']}")
    await environment.rubric.score_rollout(state)
    await environment.rubric.cleanup(state)
    return {**(state.get("metrics") or {}), "reward": float(state["reward"] or 0.0)}
