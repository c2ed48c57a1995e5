"""Environments of Gymnasium (arXiv 2407.17032) whose observations and actions are texts or few numbers; extra ``gym``.

```yaml
source:
  class_path: lightning_mem1.environments.adapters.gymnasium.GymnasiumTasks
  init_args: {id: FrozenLake-v1, kwargs: {render_mode: ansi, is_slippery: false}, actions: [left, down, right, up]}
```
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from lightning_mem1.checks import ANY_SIGN, Ranges, check_numbers
from lightning_mem1.environments.adapters import spaces
from lightning_mem1.environments.adapters.extras import needed
from lightning_mem1.environments.adapters.game_env import GameEnv
from lightning_mem1.environments.adapters.seeded_tasks import SeededTasks
from lightning_mem1.io.dotted_names import imported
from lightning_mem1.types import Env, Split, StepResult, Task

Render = Callable[[Any, Mapping[str, Any], Any], str]  # observation, info, env -> text
Parse = Callable[[str, Any], Any]  # text, env -> action
_COLOURED = re.compile(r"((?:\x1b\[[0-9;]*m)+)(.*?)\x1b\[0m", re.DOTALL)
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class GymnasiumTasks(SeededTasks):
    """Episodes of a Gymnasium environment, one seed each; satisfies `types.TaskSource`.

    Args:
        id: Name in the registry, also ``module:name`` for one that a module registers.
        kwargs: Settings of the environment, as `gymnasium.make` takes them.
        prompt: What the agent is asked; empty for "Play ...". The actions are listed below it.
        actions: Names of a discrete space's actions, the first one first; None for their numbers.
        render: Dotted name of ``render(observation, info, env) -> str``; None for the text of ``render_mode: ansi``
            where `kwargs` sets that, else for the numbers of the observation.
        parse: Dotted name of ``parse(text, env) -> action``, which raises ValueError for a text that means none;
            None reads a name, a number, numbers separated by spaces, or takes the text as it is.
        success_at: Sum of rewards from which on an episode that ended is a success; None takes ``success`` or
            ``is_success`` of the last info.
        max_turns: Turns the agent has.
        num_train: Tasks to train on.
        num_val: Tasks of the validation.
        num_test: Tasks of the test.
        seed: Moves the seeds of all tasks.

    Raises:
        ValueError: one line: no such environment or setting of it, spaces that are no text, or a number out of range.
    """

    ranges: ClassVar[Ranges] = {"success_at": ANY_SIGN}

    def __init__(
        self,
        id: str,
        kwargs: dict[str, Any] | None = None,
        *,
        prompt: str = "",
        actions: list[str] | None = None,
        render: str | None = None,
        parse: str | None = None,
        success_at: float | None = None,
        max_turns: int = 20,
        num_train: int = 1_000_000,
        num_val: int = 1000,
        num_test: int = 1000,
        seed: int = 0,
    ) -> None:
        check_numbers("data.source", GymnasiumTasks, locals())
        super().__init__(id, max_turns, num_train, num_val, num_test, seed)
        self.kwargs, self.actions, self.success_at = dict(kwargs or {}), list(actions or []), success_at
        self._render: Render | None = imported(render, "function", "data.source.render") if render else None
        self._parse: Parse | None = imported(parse, "function", "data.source.parse") if parse else None
        self.prompt = self._described(prompt or f"Play {id}.")

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of a split."""
        return self.seeded_task(split, index, self.prompt)

    def env(self, task: Task) -> Env:
        """Return a fresh environment for a task of this source."""
        game = _Episode(self.make, task.data["seed"], self.actions, self._render, self._parse)
        return GameEnv(game, self.success_at)

    def make(self) -> Any:
        """Make the Gymnasium environment.

        Raises:
            ValueError: there is none of that name, or it does not take these settings.
        """
        gymnasium = needed("gymnasium", "gymnasium", "gym", "Gymnasium")
        try:
            return gymnasium.make(self.name, **{"disable_env_checker": True, **self.kwargs})
        except Exception as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(
                f"no such Gymnasium environment: expected an id that gymnasium.make takes with these kwargs, got "
                f"'{self.name}' ({why[:300]}); set data.source.id or data.source.kwargs"
            ) from None

    def _described(self, prompt: str) -> str:
        """The prompt with the actions; also checks that both spaces are text."""
        env = self.make()
        try:
            if self._render is None and env.render_mode != "ansi":
                spaces.check_observations(env.observation_space)
            if self._parse is not None:
                return prompt
            spaces.check_actions(env.action_space, self.actions)
            return f"{prompt}\n{spaces.offered(env.action_space, self.actions)}".rstrip()
        finally:
            env.close()


class _Episode:
    """An episode of a Gymnasium environment, see `game_env.Game`."""

    def __init__(
        self, make: Callable[[], Any], seed: int, names: Sequence[str], render: Render | None, parse: Parse | None
    ) -> None:
        self._make, self._seed, self._names, self._render, self._parse = make, seed, names, render, parse
        self._env: Any = None

    def begin(self) -> str:
        """Make the environment and reset it with the task's seed."""
        self._env = self._make()
        return self._text(*self._env.reset(seed=self._seed))

    def parse(self, action: str) -> Any:
        """The action that a text means."""
        if self._parse is not None:
            return self._parse(action, self._env)
        return spaces.read(self._env.action_space, self._names, action)

    def act(self, action: Any) -> StepResult:
        """Take a step; an episode that is cut short is over too, and an info may say ``valid: False``."""
        observation, reward, terminated, truncated, info = self._env.step(action)
        done = bool(terminated or truncated)
        text = "" if done else self._text(observation, info)
        return StepResult(text, float(reward), done, bool(info.get("valid", True)), _written_info(info, truncated))

    def close(self) -> None:
        """Close the environment."""
        if self._env is not None:
            self._env.close()

    def abandon(self) -> None:
        """As `close`."""
        self.close()

    def _text(self, observation: Any, info: Mapping[str, Any]) -> str:
        if self._render is not None:
            return self._render(observation, info, self._env)
        if self._env.render_mode == "ansi":
            return plain(self._env.render())
        return spaces.written(self._env.observation_space, observation)


def plain(text: Any) -> str:
    r"""Text without the codes of a terminal; what had a colour is in brackets, because it is what matters in a grid.

    >>> plain("\x1b[41mS\x1b[0mFF\n")
    '[S]FF'
    """
    return _CONTROL.sub("", _COLOURED.sub(r"[\2]", str(text))).strip("\n")


def _written_info(info: Mapping[str, Any], truncated: bool) -> dict[str, Any]:
    """The info, with ``success`` where it says so under another name."""
    written = {str(name): value for name, value in info.items() if name != "final_observation"}
    if "success" not in written and "is_success" in written:
        written["success"] = written["is_success"]
    if "success" in written:
        written["success"] = float(written["success"])
    return {**written, "truncated": 1.0} if truncated else written
