"""Episodes of one's own task, and who writes their turns."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_mem1.data.source_checks import checked_task, split_size
from lightning_mem1.data.task_data import train_indices
from lightning_mem1.engine.scripted import ScriptedEngine, Writer
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.types import Trajectory
from lightning_mem1.warmstart.hands import hand
from lightning_mem1.warmstart.own.expert import ExpertTurns, LastReply, Watched
from lightning_mem1.warmstart.own.records import Record, read_records
from lightning_mem1.warmstart.own.replay import ReplayedTurns, replayed
from lightning_mem1.warmstart.settings import WarmStart

KEPT = "demonstrations.jsonl"


def file_of(config: WarmStart) -> str:
    """Where recorded demonstrations are."""
    return config.data.own.file or str(Path(config.output, KEPT))


@dataclass
class OwnPlay:
    """What is cloned of one's own task.

    Attributes:
        config: The warm start.
        records: Its recorded episodes; None where an expert plays.
    """

    config: WarmStart
    records: list[Record] | None = None

    @classmethod
    def of(cls, config: WarmStart) -> OwnPlay:
        """Read the file, where there is one; a teacher has written it by then.

        Raises:
            FileNotFoundError, ValueError: one line.
        """
        own = config.data.own
        if own.expert:
            if split_size(own.source, "train") < 1:  # type: ignore[arg-type]
                raise ValueError(
                    f"no train tasks: expected at least 1 from {type(own.source).__name__}, got 0; give it more data"
                )
            return cls(config)
        records = read_records(file_of(config), config.rollout.tags)
        least = config.data.min_reward
        if least is not None:
            records = [each for each in records if _may_reach(each, least)]
        if not records:
            raise ValueError(
                f"nothing to clone: expected an episode with a reward of at least {least} in '{file_of(config)}', got "
                "none; lower warmstart.data.min_reward"
            )
        return cls(config, records)

    def trajectories(self, step: int, num_episodes: int, tokenizer: Any) -> list[Trajectory]:
        """Play the episodes of a step, a function of the seed, the step and the number alone.

        Recorded ones come in a shuffled order, each once before any comes again.
        """
        rng = random.Random(f"{self.config.seed}/{step}")
        pairs = [self._expert(rng, group) for group in range(num_episodes)] if self.records is None else []
        if self.records is not None:
            numbers = train_indices(self.config.seed, step + 1, num_episodes, len(self.records))
            pairs = [self._recorded(number, group) for group, number in enumerate(numbers)]
        episodes, writers = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        engine = ScriptedEngine(tokenizer, writers)
        return collect(episodes, engine, tokenizer, self.config.rollout, self.config.mode)

    def _expert(self, rng: random.Random, group: int) -> tuple[Episode, Writer]:
        own, config = self.config.data.own, self.config
        assert own.source is not None and own.expert is not None
        task = checked_task(own.source, own.source.task("train", rng.randrange(own.source.size("train"))))
        env = Watched(own.source.env(task))
        turns = ExpertTurns(own.expert, task, env, random.Random(rng.random()), config.rollout.tags)
        slips = random.Random(rng.random())
        writer = hand(config, config.rollout.tags, turns, LastReply(env), slips, task.max_turns)
        return Episode(task, env, group), writer

    def _recorded(self, number: int, group: int) -> tuple[Episode, Writer]:
        assert self.records is not None
        record = self.records[number]
        task, env = replayed(record, self.config.data.own.source, number)
        writer = ReplayedTurns(record.turns, self.config.rollout.tags, self.config.mode.staged)
        return Episode(task, env, group), writer


def _may_reach(record: Record, least: float) -> bool:
    """Whether an episode can have reached a reward: what it earns when it is played again is seen then."""
    if record.reward is None and record.task is None:
        raise ValueError(
            f"no reward in {record.where}: expected a number, because warmstart.data.min_reward is {least}; add it, or "
            "set that to null"
        )
    return record.reward is None or record.reward >= least
