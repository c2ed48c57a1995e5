"""Questions over the generated encyclopedia as a Gymnasium environment; needs the extra ``gym``.

Importing this module registers ``lightning_mem1/QA-v0`` (Gymnasium 1 looks for no plugins), and nothing else in the
package imports it::

    import gymnasium
    import lightning_mem1.environments.qa.gym

    env = gymnasium.make("lightning_mem1/QA-v0", objectives=2)
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step("search[Odo Lin]")

``gymnasium.make("lightning_mem1.environments.qa.gym:lightning_mem1/QA-v0")`` does without the second import.
"""

from __future__ import annotations

from typing import Any

import gymnasium

from lightning_mem1.environments.adapters.any_text import AnyText
from lightning_mem1.environments.qa.tasks import EncyclopediaTasks
from lightning_mem1.types import Env, Split, Task, TaskSource

ENV_ID = "lightning_mem1/QA-v0"
MAX_OBSERVATION_CHARS = 1 << 16  # what an observation is cut to
MAX_ACTION_CHARS = 1 << 12


class QAGym(gymnasium.Env[str, str]):
    """One task of questions an episode; the reward comes with the answer.

    The first observation is the questions, later ones are what was found. Actions are ``search[query]`` and
    ``answer[answer 1; answer 2]``. `info` holds ``task``, the number of the task in its split, and what the environment
    says of a step, ``success`` among it after the answer.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}

    def __init__(
        self,
        source: TaskSource | None = None,
        *,
        split: Split = "train",
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        """Make the tasks.

        Args:
            source: Tasks of questions over a corpus of your own, see `QATasks`; None for the generated encyclopedia.
            split: The tasks to draw from.
            render_mode: ``ansi``: `render` returns the observation.
            settings: Those of `EncyclopediaTasks`: objectives, hops, num_passages, max_turns, reward and so on.

        Raises:
            ValueError: the split has no task, or a setting is none of those above.
        """
        if render_mode not in (None, "ansi"):
            raise ValueError(f"render_mode must be None or 'ansi', got {render_mode!r}")
        if source is not None and settings:
            raise ValueError(f"settings of the encyclopedia do not belong to a source, got {', '.join(settings)}")
        self.source: TaskSource = source or EncyclopediaTasks(**settings)
        if split not in ("train", "val", "test") or not self.source.size(split):
            raise ValueError(f"expected tasks in split {split!r}, got none: take train, val or test")
        self.split: Split = split
        self.render_mode = render_mode
        self.observation_space = AnyText(MAX_OBSERVATION_CHARS)
        self.action_space = AnyText(MAX_ACTION_CHARS)
        self._task: Task | None = None
        self._env: Env | None = None
        self._number, self._turns, self._shown = 0, 0, ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode; ``options={"task": i}`` takes task i of the split instead of one that is drawn."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(self.source.size(self.split)))
        self._number, self._turns = (options or {}).get("task", drawn), 0
        self._task = self.source.task(self.split, self._number)
        self._env = self.source.env(self._task)
        self._shown = "\n".join(filter(None, [self._task.prompt, self._env.observe()]))[:MAX_OBSERVATION_CHARS]
        return self._shown, {"task": self._number}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Carry out one action; the last turn of a task truncates its episode."""
        if self._env is None or self._task is None:
            raise gymnasium.error.ResetNeeded("expected reset() before step(), got step(): call reset() first")
        result = self._env.step(action)
        self._turns += 1
        self._shown = result.information[:MAX_OBSERVATION_CHARS]
        truncated = not result.done and self._turns >= self._task.max_turns
        info = {**result.info, "valid": result.valid, "task": self._number}
        return self._shown, float(result.reward), result.done, truncated, info

    def render(self) -> str | None:  # type: ignore[override]
        """Return the observation (``ansi``)."""
        return self._shown if self.render_mode == "ansi" and self._env else None


if ENV_ID not in gymnasium.registry:
    gymnasium.register(ENV_ID, entry_point=f"{__name__}:{QAGym.__name__}")
