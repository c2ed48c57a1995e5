"""Plays episodes with a policy outside of training: each memory mode gets an engine that its longest context fits.

The engine's pool keeps the number of tokens that the config gave it, so long contexts leave fewer slots. Positions that
the policy does not have cannot be given: an episode that needs them ends with `StopReason.CONTEXT`.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

import torch

from lightning_mem1.context.settings import MemorySetting, memory_mode
from lightning_mem1.engine.factory import AnyEngine, make_engine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.engine.sizing import fitting
from lightning_mem1.evaluation.view import View
from lightning_mem1.policy.policy import Policy
from lightning_mem1.rollout.budget import longest_of
from lightning_mem1.rollout.collect import Episode, collect, collect_together
from lightning_mem1.rollout.env_guard import EnvGuard
from lightning_mem1.rollout.episodes import make_env
from lightning_mem1.rollout.reply_room import warn_of_cut_replies
from lightning_mem1.rollout.seeds import trajectory_seed
from lightning_mem1.rollout.settings import greedy
from lightning_mem1.rollout.turn_loop import Play
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.types import Engine, Task, TaskSource, Trajectory, Turn


class Player:
    """Plays tasks of one source in one memory mode; `view` is what reports read its trajectories with.

    Args:
        module: Its policy plays; its engine's settings are the budget.
        source: Makes the environments.
        memory: Memory mode; None for the one that the module trains in.
        temperature: 0 is greedy.
    """

    def __init__(
        self, module: Mem1Module, source: TaskSource, memory: MemorySetting | None = None, temperature: float = 0.0
    ) -> None:
        self.module, self.source = module, source
        self.memory = module.memory if memory is None else memory_mode(memory)
        self.settings = greedy(module.rollout_settings)
        if temperature:
            self.settings = replace(module.rollout_settings, temperature=temperature)
        warn_of_cut_replies(source, module.encoder)
        self.view = View(module.encoder.decode, self.settings.tags, self.memory)
        self._engine: AnyEngine | None = None

    def engine_settings(self, tasks: Sequence[Task]) -> EngineSettings:
        """An engine that fits the longest context that these tasks can come to, see `fitting`."""
        shown = [(task, self.observation(task)) for task in tasks]
        longest = longest_of(shown, self.module.encoder, self.settings.max_new_tokens, self.memory)
        return fitting(self.module.engine_settings, longest, self.module.policy.max_positions)

    def engine(self, settings: EngineSettings) -> AnyEngine:
        """The engine; the last one is kept while its settings stay."""
        if self._engine is None or self._engine.settings != settings:
            self._engine = None  # its pool goes before the next one comes
            self._engine = make_engine(self.module.policy, settings, lambda: self.module.rl_step, training=False)
        return self._engine

    def play(
        self,
        tasks: Sequence[Task],
        engine: Engine | None = None,
        on_turn: Callable[[Trajectory, Turn], None] | None = None,
        on_end: Callable[[int, Trajectory], None] | None = None,
    ) -> list[Trajectory]:
        """Play one episode of each task.

        What is sampled follows from the task, not from what is played with it.

        Args:
            tasks: What to play.
            engine: Generates the turns; None for one that fits these tasks (`engine_settings`).
            on_turn: Called after each turn, see `rollout.collect`.
            on_end: Called after each episode, likewise.

        Returns:
            Trajectories, in the order of the tasks.
        """
        engine = engine or self.engine(self.engine_settings(tasks))
        with self._playing():
            episodes = [replace(each, group=place) for place, each in enumerate(self.episodes(tasks))]
            return collect(episodes, engine, self.module.policy.tokenizer, self.settings, self.memory, on_turn, on_end)

    def episodes(self, tasks: Sequence[Task]) -> Iterator[Episode]:
        """One episode of each task, made when it is asked for; nothing in it says what else is played."""
        for task in tasks:
            seed = trajectory_seed(self.module.seed, 0, zlib.crc32(task.id.encode()), 0)
            yield Episode(task, make_env(self.source, task), 0, seed)

    def together(self, plays: Sequence[Play], settings: EngineSettings) -> None:
        """Play what several players with the same module asked for, in one engine that is always full."""
        engine = self.engine(settings)
        with self._playing():
            collect_together(plays, engine, self.module.policy.tokenizer, at_once=settings.num_slots)

    @contextmanager
    def _playing(self) -> Iterator[None]:
        policy = self.module.policy
        training = policy.training
        policy.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            policy.train(training)

    def observation(self, task: Task) -> str:
        """What a task's environment shows before the first turn; nothing when it fails, as its episode will report."""
        with closing(EnvGuard(self.settings.env_timeout_s)) as guard:
            try:
                return guard.observe(make_env(self.source, task))
            except Exception:
                return ""


def weights_fingerprint(policy: Policy) -> str:
    """Sixteen hex digits of the shapes and first values of all weights: no two policies of a training share them."""
    digest = hashlib.sha256()
    for name, parameter in policy.named_parameters():
        values = parameter.detach().flatten()[:64].float().cpu().numpy()
        digest.update(f"{name} {tuple(parameter.shape)}".encode() + values.tobytes())
    return digest.hexdigest()[:16]
