"""Plays episodes with a policy outside of training: each memory mode gets an engine that its longest context fits.

The engine's pool keeps the number of tokens that the config gave it, so long contexts leave fewer slots. Positions that
the policy does not have cannot be given: an episode that needs them ends with `StopReason.CONTEXT`.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

import torch

from lightning_mem1.callbacks.collector import make_env, trajectory_seed
from lightning_mem1.context.memory import longest_context
from lightning_mem1.context.tags import Tags
from lightning_mem1.engine.factory import AnyEngine, make_engine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.policy import Policy
from lightning_mem1.rollout.collect import Episode, RolloutSettings, collect, greedy, prompt_ids
from lightning_mem1.rollout.env_guard import EnvGuard
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.types import Engine, Task, TaskSource, Trajectory, Turn


class Player:
    """Plays tasks of one source in one memory mode.

    Args:
        module: Its policy plays; its engine's settings are the budget.
        source: Makes the environments.
        mode: Memory mode.
        temperature: 0 is greedy.
    """

    def __init__(self, module: Mem1Module, source: TaskSource, mode: str, temperature: float = 0.0) -> None:
        self.module, self.source, self.mode = module, source, mode
        self.settings = greedy(module.rollout_settings)
        if temperature:
            self.settings = replace(module.rollout_settings, temperature=temperature)
        self._engine: AnyEngine | None = None

    def engine_settings(self, tasks: Sequence[Task]) -> EngineSettings:
        """An engine that fits the longest context that these tasks can come to, see `fitting`."""
        shown = [(task, self.observation(task)) for task in tasks]
        longest = longest_of(shown, self.module.policy, self.settings, self.mode, self.module.window)
        positions = getattr(self.module.policy.config, "max_position_embeddings", None)
        return fitting(self.module.engine_settings, longest, positions)

    def engine(self, settings: EngineSettings) -> AnyEngine:
        """The engine; the last one is kept while its settings stay."""
        if self._engine is None or self._engine.settings != settings:
            self._engine = None  # its pool goes before the next one comes
            self._engine = make_engine(self.module.policy, settings, lambda: self.module.rl_step, training=False)
        return self._engine

    def play(
        self,
        tasks: Sequence[Task],
        engine: Engine,
        on_turn: Callable[[Trajectory, Turn], None] | None = None,
        on_end: Callable[[int, Trajectory], None] | None = None,
    ) -> list[Trajectory]:
        """Play one episode of each task; the callbacks are those of `rollout.collect`.

        What is sampled follows from the task, not from what is played beside it.
        """
        seeds = [trajectory_seed(self.module.seed, 0, zlib.crc32(task.id.encode()), 0) for task in tasks]
        episodes = [
            Episode(task, make_env(self.source, task), position, seeds[position]) for position, task in enumerate(tasks)
        ]
        tokenizer, window = self.module.policy.tokenizer, self.module.window
        with torch.no_grad():
            return collect(episodes, engine, tokenizer, self.settings, self.mode, window, on_turn, on_end)

    def decode(self, ids: Sequence[int]) -> str:
        """Ids as the text that the policy wrote, tags included."""
        return str(self.module.policy.tokenizer.decode(ids, skip_special_tokens=False))

    def told(self, trajectory: Trajectory) -> tuple[Trajectory, Callable[[Sequence[int]], str], Tags, str, int]:
        """What reports on a trajectory take of it and of how it was played."""
        return trajectory, self.decode, self.settings.tags, self.mode, self.module.window

    def observation(self, task: Task) -> str:
        """What a task's environment shows before the first turn; nothing when it fails, as its episode will tell."""
        with closing(EnvGuard(self.settings.env_timeout_s)) as guard:
            try:
                return guard.observe(make_env(self.source, task))
            except Exception:
                return ""


def longest_of(
    tasks: Sequence[tuple[Task, str]], policy: Policy, settings: RolloutSettings, mode: str, window: int = 2
) -> int:
    """Longest context that any of these tasks can come to, the turn written in it included, in tokens; 2 without tasks.

    Args:
        tasks: Each with what its environment shows before the first turn.
        policy: Its tokenizer counts.
        settings: Limits of turns and replies.
        mode: Memory mode.
        window: Turns kept by mode `window`, retrieved by mode `amem`.
    """
    opening = len(policy.tokenizer.encode(settings.tags.state_opening, add_special_tokens=False))
    return max(
        (
            longest_context(
                len(prompt_ids(task, observation, policy.tokenizer, settings, mode)),
                task.max_turns,
                settings.max_new_tokens,
                settings.max_information_tokens,
                mode,
                window,
                opening,
            )
            for task, observation in tasks
        ),
        default=2,
    )


def fitting(budget: EngineSettings, longest: int, positions: int | None = None) -> EngineSettings:
    """An engine for contexts of up to `longest` tokens whose pool holds no more tokens than `budget`'s.

    With 8 slots of 100 tokens to spend::

        longest  90    8 slots of  90
        longest 250    3 slots of 250
        longest 900    1 slot  of 900, the least there can be
        longest 900    2 slots of 400 when the policy has 400 positions

    Servers and vLLM mind their own memory: as many slots as there are.

    Args:
        budget: The config's engine.
        longest: Longest context, the turn written in it included, in tokens.
        positions: Positions that the policy has; None for no limit.
    """
    limit = longest if positions is None else min(longest, positions)
    if budget.kind != "local":
        return replace(budget, max_context_tokens=limit)
    slots = budget.num_slots * budget.max_context_tokens // limit
    return replace(budget, num_slots=max(1, min(budget.num_slots, slots)), max_context_tokens=limit)


def weights_fingerprint(policy: Policy) -> str:
    """Sixteen hex digits of the shapes and first values of all weights: no two policies of a training share them."""
    digest = hashlib.sha256()
    for name, parameter in policy.named_parameters():
        values = parameter.detach().flatten()[:64].float().cpu().numpy()
        digest.update(f"{name} {tuple(parameter.shape)}".encode() + values.tobytes())
    return digest.hexdigest()[:16]
