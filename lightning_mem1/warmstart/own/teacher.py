"""A teacher behind an endpoint plays training tasks; what it plays is kept, and of that what earns enough is cloned.

It sees what a policy in the memory mode of the warm start sees, with the format explained. Every finished episode is a
line of the file at once, so that a run that was interrupted resumes, and another `data.min_reward` costs no calls.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightning_mem1.data.source_checks import checked_task, split_size
from lightning_mem1.data.task_data import spread_indices
from lightning_mem1.engine.remote.chat import ChatEngine
from lightning_mem1.io.chat_client import ChatClient
from lightning_mem1.io.disk_room import room_for
from lightning_mem1.io.redaction import shown
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import StopReason, Trajectory
from lightning_mem1.warmstart.own.byte_tokenizer import byte_tokenizer
from lightning_mem1.warmstart.own.play import file_of
from lightning_mem1.warmstart.own.records import read_records
from lightning_mem1.warmstart.settings import WarmStart

KEY = "warmstart.data.own.teacher.endpoint"
PER_ROUND = 64  # episodes played before it is looked at which tasks still need one


def teach(config: WarmStart) -> None:
    """Have the teacher play until each task has its episodes, and write them to the file.

    Raises:
        ValueError: settings that do not fit, or no episode could be played.
    """
    own, least = config.data.own, config.data.min_reward
    assert own.teacher is not None and own.source is not None
    if least is None:
        raise ValueError(
            "a teacher's episodes are chosen by their reward: expected warmstart.data.min_reward, got null; set it"
        )
    client = ChatClient(own.teacher.endpoint, KEY)
    size = split_size(own.source, "train")
    if size < 1:
        raise ValueError(
            f"no train tasks: expected at least 1 from {type(own.source).__name__}, got 0; give it more data"
        )
    Teaching(config, client, least, spread_indices(own.teacher.num_tasks, size)).run()


class Teaching:
    """The episodes of a teacher.

    Args:
        config: The warm start.
        client: Asks the teacher.
        least: The reward that is reached.
        indices: Of the tasks.
    """

    def __init__(self, config: WarmStart, client: ChatClient, least: float, indices: Sequence[int]) -> None:
        assert config.data.own.teacher is not None
        self.config, self.client, self.least, self.indices = config, client, least, list(indices)
        self.settings = config.data.own.teacher
        self.path = Path(file_of(config))
        self.tries: Counter[int] = Counter()  # by task, those that failed too
        self.good: Counter[int] = Counter()
        if self.path.is_file() and self.path.stat().st_size:
            for record in read_records(str(self.path), config.rollout.tags):
                if record.task and record.task[0] == "train":
                    self._count(record.task[1], record.reward or 0.0)

    def run(self) -> None:
        """Play, a part of the tasks at a time, until none needs another episode."""
        with ChatEngine(self.client, byte_tokenizer(), self.settings.parallel, self._tell) as engine:
            while due := self.due()[:PER_ROUND]:
                found = self._play(due, engine)
                self._keep(found)
                if not any(self.tries.values()) or all(t.stop_reason == StopReason.ERROR for t in found):
                    raise ValueError(
                        f"the teacher gave no episode: expected turns from {self.client.address}, got "
                        f"'{shown(found[0].error)[:200]}'; see that it is up, or set {KEY}"
                    )
                print(self._told(engine), flush=True)

    def due(self) -> list[int]:
        """Tasks that need another episode, those with the fewest first."""
        limit, keep = self.settings.samples, self.settings.keep
        due = [index for index in self.indices if self.good[index] < keep and self.tries[index] < limit]
        return sorted(due, key=lambda index: self.tries[index])

    def _play(self, indices: Sequence[int], engine: ChatEngine) -> list[Trajectory]:
        source = self.config.data.own.source
        assert source is not None
        episodes = []
        for index in indices:
            task = checked_task(source, source.task("train", index))
            seed = self.config.seed + 1000 * index + self.tries[index]
            episodes.append(Episode(task, source.env(task), index, seed))
        return collect(episodes, engine, byte_tokenizer(), self._rollout(), self.config.mode)

    def _rollout(self) -> RolloutSettings:
        """The format is explained to it; what it is shown is not cut by a small policy's limits."""
        given = self.settings
        return replace(
            self.config.rollout,
            prompt="full",
            temperature=given.temperature,
            max_new_tokens=given.max_new_tokens,
            max_information_tokens=8 * self.config.rollout.max_information_tokens,  # bytes
            instructions=given.instructions or self.config.rollout.instructions,
            begin_with_state=False,
        )

    def _keep(self, found: Sequence[Trajectory]) -> None:
        """Append finished episodes to the file; one that failed is counted, and tried again in another run."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with room_for(self.path), open(self.path, "a", encoding="utf-8") as file:
            for each in found:
                if each.stop_reason == StopReason.ERROR:
                    self.tries[each.group] += 1
                    continue
                self._count(each.group, each.reward)
                line = {"split": "train", "index": each.group, "turns": texts(each), "reward": each.reward}
                file.write(json.dumps({**line, "teacher": self.client.settings.model}, ensure_ascii=False) + "\n")

    def _count(self, index: int, reward: float) -> None:
        self.tries[index] += 1
        self.good[index] += reward >= self.least

    def _told(self, engine: ChatEngine) -> str:
        tasks = sum(self.good[index] > 0 for index in self.indices)
        return (
            f"teacher: {sum(self.tries.values())} episodes, {sum(self.good.values())} reach {self.least:g}, in {tasks} "
            f"of {len(self.indices)} tasks; {engine.num_asked} turns asked for, {engine.num_failed} not given"
        )

    def _tell(self, line: str) -> None:
        print(f"teacher: {shown(line)}", flush=True)


def texts(trajectory: Trajectory) -> list[str]:
    """The turns as one text each: a memory that was written in a call of its own begins the act that follows it."""
    decode, found, memory = byte_tokenizer().decode, [], ""
    for turn in trajectory.turns:
        if turn.kind == "memory":
            memory = decode(turn.ids)
        else:
            found.append(memory + decode(turn.ids))
            memory = ""
    return found
