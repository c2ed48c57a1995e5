"""A task source and environments small enough to reason about, named by class_path in the tests' configs."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

from lightning.pytorch import Callback

from lightning_mem1.types import Env, Objective, Split, StepResult, Task

SIZES = {"train": 10, "val": 6, "test": 2}


def tiny_config(policy: str, num_rl_steps: int = 2) -> dict[str, Any]:
    """A config of `fit` that takes seconds: the policy of a folder, two tasks x three episodes per rl_step."""
    return {
        "model": {
            "policy": policy,
            "lora": {"r": 4},
            "engine": {"num_slots": 8, "max_context_tokens": 160},
            "rollout": {"max_new_tokens": 6, "max_information_tokens": 40, "prompt": "brief"},
        },
        "data": {
            "class_path": "lightning_mem1.data.task_data.TaskDataModule",
            "init_args": {
                "source": {"class_path": "tiny_tasks.RankedTasks"},
                "tasks_per_step": 2,
                "group_size": 3,
                "num_rl_steps": num_rl_steps,
                "num_val_tasks": 2,
            },
        },
        "trainer": {"accelerator": "cpu"},
    }


class RankedEnv:
    """Takes any action, ends after two turns and pays what it was made with."""

    num_turns = 2

    def __init__(self, reward: float) -> None:
        self.reward, self.num_steps = reward, 0

    def observe(self) -> str:
        return "search page"

    def step(self, action: str) -> StepResult:
        self.num_steps += 1
        if self.num_steps < self.num_turns:
            return StepResult("red shoes", valid=bool(action))
        return StepResult("", self.reward, done=True, valid=bool(action), info={"success": float(self.reward == 1.0)})


class RankedTasks:
    """The n-th episode of a training task's group is paid n / (group_size - 1); validation pays 0.5.

    A random policy learns from it without ever writing a proper action, and every rl_step is repeatable.
    """

    def __init__(self, group_size: int = 3, equal: bool = False) -> None:
        self.group_size, self.equal = group_size, equal
        self.made: Counter[str] = Counter()

    def size(self, split: Split) -> int:
        return SIZES[split]

    def task(self, split: Split, index: int) -> Task:
        return Task(f"ranked/{split}/{index}", f"count to {index}", (Objective("how many?"),), max_turns=4)

    def env(self, task: Task) -> Env:
        number = self.made[task.id] % self.group_size
        self.made[task.id] += 1
        fixed = self.equal or "/val/" in task.id
        return RankedEnv(0.5 if fixed else number / (self.group_size - 1))

    def baselines(self, split: Split, indices: list[int]) -> dict[str, float]:
        return {"rule": 0.25, "oracle": 1.0}


class LongEnv(RankedEnv):
    """Ends after four turns, so that memory has dropped something."""

    num_turns = 4


class LongTasks(RankedTasks):
    """The same over four turns."""

    def env(self, task: Task) -> Env:
        return LongEnv(super().env(task).reward)  # type: ignore[attr-defined]


class FirstStepIsLong(RankedTasks):
    """Training episodes take four turns in rl_step 1 and two in the later ones: some metrics are of rl_step 1 alone."""

    def task_at(self, rl_step: int, index: int, position: int) -> Task:
        name = "long" if rl_step == 1 else "short"
        return Task(f"ranked/train/{index}/{name}", f"count to {index}", (Objective("how many?"),), max_turns=4)

    def env(self, task: Task) -> Env:
        reward = super().env(task).reward  # type: ignore[attr-defined]
        return (LongEnv if task.id.endswith("long") else RankedEnv)(reward)


class BrokenEnv(RankedEnv):
    """Fails in its second turn."""

    def step(self, action: str) -> StepResult:
        if self.num_steps:
            raise RuntimeError("the shop is on fire")
        return super().step(action)


class BrokenTasks(RankedTasks):
    """The first episode of every group breaks."""

    def env(self, task: Task) -> Env:
        env = super().env(task)
        return BrokenEnv(0.0) if env.reward == 0.0 else env  # type: ignore[attr-defined]


RELEASED = threading.Event()  # lets the steps go on that hang


def fall_over() -> StepResult:
    raise RuntimeError("the shop is on fire")


def hang() -> StepResult:
    RELEASED.wait()
    return StepResult("too late")


MEGABYTES = "x" * 10_000_000
FAULTS: dict[str, Callable[[], Any]] = {  # what a step does in place of its work
    "raises": fall_over,
    "hangs": hang,
    "nothing": lambda: None,
    "bytes": lambda: StepResult(b"page"),  # type: ignore[arg-type]
    "reward": lambda: StepResult("page", reward=float("nan")),
    "info": lambda: StepResult("page", info={"success": "yes"}),
    "10 MB": lambda: StepResult(MEGABYTES, info={"page": MEGABYTES}),
    "no text": lambda: StepResult("\ud800\x00\x1b[2J", done=True, info={"\ud800": "\udfff"}),
}
HARMLESS = ("10 MB", "no text")  # an episode gets over these


class FaultyEnv(RankedEnv):
    """Takes four turns; when it is its turn, does one of `FAULTS`."""

    num_turns = 4

    def __init__(self, reward: float, fault: Callable[[], Callable[[], Any] | None]) -> None:
        super().__init__(reward)
        self.fault = fault

    def step(self, action: str) -> StepResult:
        fault = self.fault()
        return fault() if fault else super().step(action)


class FaultyTasks(RankedTasks):
    """Every tenth step of all episodes is a fault, each kind in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.num_steps, self.seen = 0, Counter[str]()

    def env(self, task: Task) -> Env:
        return FaultyEnv(super().env(task).reward, self.fault)  # type: ignore[attr-defined]

    def fault(self) -> Callable[[], Any] | None:
        self.num_steps += 1
        if self.num_steps % 10:
            return None
        name = list(FAULTS)[(self.num_steps // 10 - 1) % len(FAULTS)]
        self.seen[name] += 1
        return FAULTS[name]


class FullStore(Callback):
    """From the second rl_step on MLflow's sqlite store has no room: what it says then, for whatever is written."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch.rl_step == 2:
            for_every_table(self.path, "CREATE TRIGGER full_{0}_{1} BEFORE {1} ON {0} BEGIN {2}; END")


def for_every_table(path: str, statement: str) -> None:
    """Execute a statement about each table ({0}) of an sqlite file and INSERT and UPDATE ({1}), {2}: fail."""
    failing = "SELECT RAISE(FAIL, 'database or disk is full')"
    with closing(sqlite3.connect(path)) as store:
        for (table,) in store.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        ).fetchall():
            for event in ("INSERT", "UPDATE"):
                store.execute(statement.format(table, event, failing))
        store.commit()


class InterruptedTasks(RankedTasks):
    """Somebody presses Ctrl-C in the first episode of the third rl_step."""

    def env(self, task: Task) -> Env:
        if sum(n for name, n in self.made.items() if "/train/" in name) >= 2 * 2 * self.group_size:
            raise KeyboardInterrupt
        return super().env(task)


class TerminatedTasks(RankedTasks):
    """The scheduler wants the machine back in the first episode of the second rl_step."""

    def env(self, task: Task) -> Env:
        if sum(n for name, n in self.made.items() if "/train/" in name) == 2 * self.group_size:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().env(task)


class TerminatedRank(RankedTasks):
    """The scheduler wants the machine of the second rank back, in its first episode of the second rl_step."""

    def env(self, task: Task) -> Env:
        num_played = sum(n for name, n in self.made.items() if "/train/" in name)
        if os.environ.get("RANK") == "1" and num_played == self.group_size:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().env(task)


class NoTasks(RankedTasks):
    """Has nothing to do."""

    def size(self, split: Split) -> int:
        return 0


class KeyedTasks(RankedTasks):
    """Would ask a service that wants a key."""

    def __init__(self, api_key: str, address: str = "") -> None:
        super().__init__()
        self.api_key, self.address = api_key, address


class EvenTasks:
    """Nothing is kept between episodes, so that it does not matter in which process they are played."""

    def size(self, split: Split) -> int:
        return SIZES[split]

    def task(self, split: Split, index: int) -> Task:
        return Task(f"even/{split}/{index}", f"count to {index}", (Objective("how many?"),), max_turns=4)

    def env(self, task: Task) -> Env:
        return RankedEnv(0.5)


class DeadlyEnv(RankedEnv):
    """Takes its process with it."""

    def step(self, action: str) -> StepResult:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class DeadlyTasks(EvenTasks):
    """The second task of each batch is deadly."""

    def task_at(self, rl_step: int, index: int, position: int) -> Task:
        name = "deadly" if position == 1 else "harmless"
        return Task(f"even/train/{index}/{name}", f"count to {index}", (Objective("how many?"),), max_turns=4)

    def env(self, task: Task) -> Env:
        return DeadlyEnv(0.5) if task.id.endswith("deadly") else super().env(task)


class UnpicklableTasks(EvenTasks):
    """Holds what belongs to one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class KilledRank(RankedTasks):
    """The second rank dies at once in its second episode of the third rl_step, unless torchrun has started it again."""

    def task_at(self, rl_step: int, index: int, position: int) -> Task:
        name = "third" if rl_step == 3 else "other"
        return Task(f"ranked/train/{index}/{name}", f"count to {index}", (Objective("how many?"),), max_turns=4)

    def env(self, task: Task) -> Env:
        first = os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0" and "KILL_RANK" in os.environ
        if first and os.environ.get("RANK") == "1" and task.id.endswith("third") and self.made[task.id]:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().env(task)


class SlowEnv(RankedEnv):
    """Takes its time, over four turns."""

    num_turns = 4

    def step(self, action: str) -> StepResult:
        time.sleep(0.1)
        return super().step(action)


class SlowTasks(EvenTasks):
    """Episodes that last long enough for weights to change meanwhile."""

    def env(self, task: Task) -> Env:
        return SlowEnv(len(task.id) % 2)


class KilledAtThree(Callback):
    """A run dies at once before it learns from its third rl_step, unless it was resumed."""

    def __init__(self) -> None:
        self.resumed = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.resumed = pl_module.rl_step > 0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch.rl_step == 3 and not self.resumed:
            os.kill(os.getpid(), signal.SIGKILL)
