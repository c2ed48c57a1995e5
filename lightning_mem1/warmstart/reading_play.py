"""Generated documents and the scripted reader who reads them."""

from __future__ import annotations

import random
from dataclasses import replace

from lightning_mem1.engine.scripted import Writer
from lightning_mem1.environments.reading.env import ReadingEnv
from lightning_mem1.environments.reading.scripted_reader import ScriptedReader
from lightning_mem1.environments.reading.tasks import ReadingTasks
from lightning_mem1.types import Env, Task
from lightning_mem1.warmstart.hands import Play, hand
from lightning_mem1.warmstart.settings import Stage, WarmStart
from lightning_mem1.warmstart.subtasks import of_document


def reading_play(config: WarmStart, stage: Stage, seed: int) -> Play:
    """The documents of a seed, as long as the stage has them, and the reader."""
    data, settings = config.data.reading, replace(config.rollout, format="reading")
    source = ReadingTasks(data.kinds, stage.lengths, stage.part, data.turns_per_part, seed=seed)

    def writer(rng: random.Random, env: Env, task: Task) -> Writer:
        reader, question = ScriptedReader(rng, data.skill, settings.tags), task.objectives[0].question

        def turn(previous: str | None, left: int) -> str:
            return reader.turn(question, previous, env.observe(), left)

        assert isinstance(env, ReadingEnv)
        return hand(config, settings.tags, turn, env, rng, task.max_turns, subtasks=of_document(env, settings.tags))

    return source, settings, writer
