"""Streams tasks: the tasks of rl_step s are a pure function of (seed, s), so a run resumes at any rl_step.

A batch holds tasks, never trajectories: Lightning fetches it one step ahead, and what it holds must not age. There is
no distributed sampler: ranks share the global list of an rl_step among themselves.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Self

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lightning_mem1.checks import SEED, Range, Ranges, check_numbers, resolve_seed
from lightning_mem1.data.source_checks import checked_task, split_size
from lightning_mem1.types import Task, TaskSource, Trajectory


class TaskBatch:
    """The tasks of one rl_step on this rank. Not a dataclass: Lightning would take one apart to move it to a device.

    Attributes:
        rl_step: Number of the rl_step, from 1; in validation the number of rl_steps done.
        tasks: The tasks to play.
        positions: The place of each task in the list of all ranks: its group number and part of its seeds.
        trajectories: What was played, filled by `RolloutCallback`; the episodes of a task stand together.
    """

    def __init__(self, rl_step: int, tasks: Sequence[Task], positions: Sequence[int]) -> None:
        self.rl_step = rl_step
        self.tasks = list(tasks)
        self.positions = list(positions)
        self.trajectories: list[Trajectory] = []


class TaskStream(IterableDataset):
    """Batches of the rl_steps after those done, up to `last`; endless when `last` is None.

    `done` is asked each time the stream starts, so that a second epoch continues where the first one ended.
    """

    def __init__(
        self,
        source: TaskSource,
        tasks_per_step: int,
        seed: int,
        done: Callable[[], int],
        last: int | None,
        rank: int,
        world: int,
    ) -> None:
        self.source, self.tasks_per_step, self.seed = source, tasks_per_step, seed
        self.done, self.last, self.rank, self.world = done, last, rank, world

    def __iter__(self) -> Iterator[TaskBatch]:
        worker = get_worker_info()  # loader workers take turns, so that no rl_step is served twice
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        rl_step = self.done() + 1 + first
        while self.last is None or rl_step <= self.last:
            yield self.batch(rl_step)
            rl_step += stride

    def batch(self, rl_step: int) -> TaskBatch:
        """The tasks of an rl_step (from 1) on this rank."""
        indices = train_indices(self.seed, rl_step, self.tasks_per_step, split_size(self.source, "train"))
        positions = range(self.rank, len(indices), self.world)
        return TaskBatch(rl_step, [self._task(rl_step, indices[p], p) for p in positions], positions)

    def _task(self, rl_step: int, index: int, position: int) -> Task:
        """A source with a curriculum has `task_at`, which gets the rl_step and the place in the batch as well."""
        task_at = getattr(self.source, "task_at", None)
        made = task_at(rl_step, index, position) if task_at else self.source.task("train", index)
        return checked_task(self.source, made)


def train_indices(seed: int, rl_step: int, tasks_per_step: int, size: int) -> list[int]:
    """Indices of the training tasks of an rl_step (from 1): every task once before any comes again.

    With 5 tasks and 2 per step, steps 1 and 2 and half of step 3 use up one shuffled order::

        order of seed 0, round 0:  a b c d e     round 1:  f g h i j
        step 1: a b   step 2: c d   step 3: e f   step 4: g h
    """
    stream = range((rl_step - 1) * tasks_per_step, rl_step * tasks_per_step)
    return [_order(seed, number // size, size)[number % size] for number in stream]


@lru_cache(maxsize=4)
def _order(seed: int, round_number: int, size: int) -> list[int]:
    order = list(range(size))
    random.Random(f"{seed}/{round_number}").shuffle(order)
    return order


def spread_indices(num_tasks: int, size: int) -> list[int]:
    """At most `num_tasks` different indices, spread evenly: 3 of 10 are 1, 5 and 8."""
    num_tasks = min(num_tasks, size)
    return [(2 * k + 1) * size // (2 * num_tasks) for k in range(num_tasks)]


class TaskDataModule(LightningDataModule):
    """Feeds tasks of any source to training and validation.

    Args:
        source: Makes tasks and their environments; in YAML a `class_path` with `init_args`.
        tasks_per_step: Different tasks in one rl_step, over all ranks.
        group_size: Episodes of each task.
        num_rl_steps: Collect-and-update iterations of the whole run, resumed parts included; null for no end.
        num_val_tasks: Validation tasks, spread evenly over the split; the same ones each time.
        val_batch_size: Validation tasks played at once on one rank.
        seed: Of the order of tasks; null takes `seed_everything`'s.

    Raises:
        ValueError: a number is too small, or the source holds no task.
    """

    ranges: ClassVar[Ranges] = {
        "tasks_per_step": Range(1, 10**6),
        "group_size": Range(1, 10**6),
        "num_rl_steps": Range(1),
        "val_batch_size": Range(1),
        "seed": SEED,
    }

    def __init__(
        self,
        source: TaskSource | None = None,
        tasks_per_step: int = 8,
        group_size: int = 8,
        num_rl_steps: int | None = 40,
        num_val_tasks: int = 100,
        val_batch_size: int = 128,
        seed: int | None = None,
    ) -> None:
        check_numbers("data", TaskDataModule, locals())
        super().__init__()
        self.tasks_per_step, self.group_size = tasks_per_step, group_size
        self.num_rl_steps, self.num_val_tasks, self.val_batch_size = num_rl_steps, num_val_tasks, val_batch_size
        self.seed = resolve_seed(seed)
        self._source = source
        self._done_rl_steps = 0
        self._baselines: dict[str, float] | None = None

    @property
    def source(self) -> TaskSource:
        """The task source, made at first use."""
        if self._source is None:
            self._source = self.make_source()
        return self._source

    def make_source(self) -> TaskSource:
        """Build the source; subclasses that know their environment override this."""
        raise ValueError(
            "no task source: expected data.init_args.source with a class_path, got null; name one, or use "
            "data.class_path WebShopData"
        )

    def source_maker(self) -> Callable[[], TaskSource]:
        """What makes the source in another process: it holds the settings, or a source that was given as it is."""
        alone = self.unmade()
        return lambda: alone.source

    def unmade(self) -> Self:
        """A copy for another process, without the trainer and without the source that this process has made."""
        alone = copy.copy(self)
        alone.trainer = None
        if type(self).make_source is not TaskDataModule.make_source:
            alone._source = None
        return alone

    def files(self) -> list[str]:
        """Files and folders that the tasks come from, so that a run can keep their hashes; subclasses name theirs."""
        return []

    def setup(self, stage: str) -> None:
        """Build the source and check that it has tasks for every rank."""
        for split in ("train", "val"):
            wanted = split == "train" or self.num_val_tasks
            if wanted and split_size(self.source, split) < 1:  # type: ignore[arg-type]
                raise ValueError(
                    f"no {split} tasks: expected at least 1 from {type(self.source).__name__}, got 0; give it more data"
                )
        shared = {"tasks_per_step": self.tasks_per_step, "num_val_tasks": len(self.val_indices) or self._world}
        for name, number in shared.items():
            if number < self._world:
                raise ValueError(
                    f"too few tasks for the ranks: expected data.{name} of at least {self._world}, got {number}; "
                    f"raise data.{name} or use fewer trainer.devices"
                )

    def train_dataloader(self) -> DataLoader:
        """One batch per rl_step, beginning after the rl_steps that are done."""
        return DataLoader(self._stream(), batch_size=None, generator=_own_generator())

    def train_batch(self, rl_step: int, whole: bool = False) -> TaskBatch | None:
        """The tasks of an rl_step, as the loader will give them on this rank or of all ranks; None after the last."""
        beyond = self.num_rl_steps is not None and rl_step > self.num_rl_steps
        return None if beyond else self._stream(whole).batch(rl_step)

    def _stream(self, whole: bool = False) -> TaskStream:
        return TaskStream(
            self.source,
            self.tasks_per_step,
            self.seed,
            self.rl_steps_done,
            self.num_rl_steps,
            0 if whole else self._rank,
            1 if whole else self._world,
        )

    def val_dataloader(self) -> DataLoader:
        """The fixed validation tasks of this rank."""
        positions = range(self._rank, len(self.val_indices), self._world)
        chunks = [positions[i : i + self.val_batch_size] for i in range(0, len(positions), self.val_batch_size)]
        indices = self.val_indices
        batches = [TaskBatch(0, [self._val_task(indices[p]) for p in chunk], chunk) for chunk in chunks]
        return DataLoader(batches, batch_size=None, generator=_own_generator())  # type: ignore[arg-type]

    def _val_task(self, index: int) -> Task:
        return checked_task(self.source, self.source.task("val", index))

    @property
    def val_indices(self) -> list[int]:
        """Indices of the validation tasks, over all ranks."""
        return spread_indices(self.num_val_tasks, split_size(self.source, "val")) if self.num_val_tasks else []

    def baselines(self) -> dict[str, float]:
        """Mean rewards of the source's own baselines on the validation tasks, e.g. rule and oracle; {} without any."""
        if self._baselines is None:
            play = getattr(self.source, "baselines", None)
            self._baselines = dict(play("val", self.val_indices)) if play else {}
        return self._baselines

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Tasks are plain Python: nothing to move."""
        return batch

    def rl_steps_done(self) -> int:
        """How many rl_steps are done: the module's count, because a fetched batch is not yet a trained one."""
        module: Any = self.trainer.lightning_module if self.trainer else None
        return module.rl_step if module else self._done_rl_steps

    def state_dict(self) -> dict[str, int]:
        """How many rl_steps are done."""
        return {"done_rl_steps": self.rl_steps_done()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue after the rl_steps that are done; raises ValueError for a state that does not say how many."""
        done = state_dict.get("done_rl_steps") if isinstance(state_dict, dict) else None
        if not isinstance(done, int) or done < 0:
            raise ValueError(
                "incomplete checkpoint: expected done_rl_steps of the data to be a whole number from 0, got "
                f"{done!r:.60}; set --ckpt_path to another one"
            )
        self._done_rl_steps = done

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world(self) -> int:
        return self.trainer.world_size if self.trainer else 1


def _own_generator() -> torch.Generator:
    """A loader draws a number whenever it starts, which a resumed run does at another time: not from everybody's."""
    return torch.Generator()
