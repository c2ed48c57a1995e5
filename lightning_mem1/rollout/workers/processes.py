"""Workers that are processes of this machine.

Each is a fresh interpreter at the other end of a pair of sockets, so that nothing of the process that trains is forked
(its threads, its GPU), and a script without ``if __name__ == "__main__"`` or a notebook can have workers too. A worker
ends when its socket closes, whatever became of the process that trains.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory

import cloudpickle
import torch

from lightning_mem1.rollout.workers.job import Job, Plan, Weights, pickled
from lightning_mem1.rollout.workers.pool import Outcome

GONE = (EOFError, ConnectionError, BrokenPipeError)


class Processes:
    """A `pool.Crew` of processes; they start at the first job.

    Args:
        plan: What each worker is made of.
        count: How many.

    Raises:
        ValueError: the task source cannot be sent to another process.
    """

    def __init__(self, plan: Plan, count: int) -> None:
        self.count, self._plan = count, pickled(plan)
        self._ends: dict[int, Connection] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._folder = TemporaryDirectory(prefix="lightning_mem1_weights_")
        self._given: dict[int, Path] = {}  # the weights that each worker's last job came with

    def send(self, worker: int, job: Job, weights: Weights) -> None:
        """Give a job to a worker; the first one starts it."""
        if worker not in self._ends:
            self._start(worker)
        self._given[worker] = self._file(weights)
        self._tell(worker, weights, job)

    def renew(self, worker: int, weights: Weights) -> None:
        """Give newer weights to a worker in the middle of a job."""
        self._file(weights)
        self._tell(worker, weights, None)

    def receive(self, timeout_s: float) -> Outcome | None:
        """See `pool.Crew.receive`."""
        for end in wait(list(self._ends.values()), timeout_s):
            worker = next(number for number, known in self._ends.items() if known is end)
            try:
                said = cloudpickle.loads(end.recv_bytes())  # type: ignore[union-attr]
            except GONE:
                self._end(worker)
                return Outcome(worker, None)
            if isinstance(said, str):
                raise ValueError(said)
            return Outcome(worker, said)
        return None

    def close(self) -> None:
        """End every worker, also one in the middle of a job."""
        for worker in list(self._ends):
            self._end(worker)
        self._folder.cleanup()

    def processes(self) -> Sequence[int]:
        """Ids of the processes that run."""
        return [process.pid for process in self._processes.values()]

    def _start(self, worker: int) -> None:
        here, there = socket.socketpair()
        with there:
            command = [sys.executable, "-m", "lightning_mem1.rollout.workers.child", str(there.fileno()), str(worker)]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self._processes[worker] = subprocess.Popen(
                command, pass_fds=[there.fileno()], env=environment, stdin=subprocess.DEVNULL
            )
        self._ends[worker] = Connection(here.detach())
        self._ends[worker].send_bytes(self._plan)

    def _end(self, worker: int) -> None:
        self._ends.pop(worker).close()
        process = self._processes.pop(worker)
        process.kill()
        process.wait()

    def _tell(self, worker: int, weights: Weights, job: Job | None) -> None:
        message = (str(self._path(weights)), weights.key, weights.version, job)
        with suppress(*GONE):  # it died: `receive` finds its socket closed
            self._ends[worker].send_bytes(cloudpickle.dumps(message))

    def _path(self, weights: Weights) -> Path:
        return Path(self._folder.name) / f"{weights.key}.pt"

    def _file(self, weights: Weights) -> Path:
        """Where the weights are: written once for all workers, in place of those that no job under way came with."""
        path = self._path(weights)
        if not path.exists():
            for old in set(path.parent.glob("*.pt")) - set(self._given.values()):
                old.unlink()
            torch.save(dict(weights.state), path)
        return path
