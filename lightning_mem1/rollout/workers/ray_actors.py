"""Workers that are actors of a Ray cluster. Ray places them, and starts one that died again.

The weights of an rl_step are put into Ray's object store once, from where each machine fetches them once.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import cloudpickle

from lightning_mem1.rollout.workers.job import Job, Plan, SentWeights, Weights, pickled
from lightning_mem1.rollout.workers.pool import Outcome
from lightning_mem1.rollout.workers.worker import Worker

ADDRESS = re.compile(r"^(?:ray://)?([^:/]+):(\d+)$")
LOOK_S = 5.0  # for an address that does not answer


class RayActors:
    """A `pool.Crew` of Ray actors.

    Args:
        plan: What each worker is made of.
        count: How many.
        address: Of the cluster; None starts one on this machine, unless one is there already.
        resources: ``num_cpus``, ``num_gpus`` and resources by names of your own, for each worker.
        renews: Whether weights may come in the middle of a job: actors then have a second thread, which takes them.

    Raises:
        ValueError: there is no such cluster, or the one that was started here has too little for all workers.
    """

    def __init__(
        self,
        plan: Plan,
        count: int,
        address: str | None,
        resources: Mapping[str, float] | None,
        renews: bool = False,
    ) -> None:
        import ray

        self.count, self._ray = count, ray
        self._own = not ray.is_initialized()
        if self._own:
            _connect(ray, address)
        wanted = dict(resources or {"num_cpus": 1.0})
        if short := lacking(wanted, count, ray.cluster_resources()):
            advice = "set model.rollout.workers.count or .resources lower"
            if self._own and address is None and "RAY_ADDRESS" not in os.environ:  # this machine does not grow
                ray.shutdown()
                raise ValueError(f"{short}; {advice}")
            warnings.warn(f"{short}; the rollout waits until it grows, or {advice}", stacklevel=2)
        self._plan = ray.put((sys.path, pickled(plan)))
        self._options = _options(wanted) | ({"max_concurrency": 2} if renews else {})
        self._actors: dict[int, Any] = {}
        self._waiting: dict[Any, int] = {}  # what is to come -> who owes it
        self._weights: tuple[str, Any] = ("", None)

    def send(self, worker: int, job: Job, weights: Weights) -> None:
        """Give a job to a worker; the first one starts it."""
        if worker not in self._actors:
            self._actors[worker] = self._ray.remote(_Actor).options(**self._options).remote(self._plan)
        owed = self._actors[worker].play.remote(job, weights.version, weights.key, self._held(weights))
        self._waiting[owed] = worker

    def renew(self, worker: int, weights: Weights) -> None:
        """Give newer weights to a worker in the middle of a job."""
        self._actors[worker].renew.remote(weights.version, weights.key, self._held(weights))

    def _held(self, weights: Weights) -> list[Any]:
        """A reference in a list: Ray hands it on as it is, and the worker fetches the weights only if need be."""
        if weights.key != self._weights[0]:
            self._weights = weights.key, self._ray.put(dict(weights.state))
        return [self._weights[1]]

    def receive(self, timeout_s: float) -> Outcome | None:
        """See `pool.Crew.receive`."""
        ready, _ = self._ray.wait(list(self._waiting), num_returns=1, timeout=timeout_s)
        if not ready:
            return None
        worker = self._waiting.pop(ready[0])
        try:
            return Outcome(worker, self._ray.get(ready[0]))
        except self._ray.exceptions.RayTaskError as error:
            raise ValueError(f"worker {worker} failed: {_reason(error)}") from error
        except self._ray.exceptions.RayActorError as error:
            if "__init__" in str(error):  # it cannot be made: another one could not either
                raise ValueError(f"worker {worker} failed: {_reason(error)}") from error
            self._actors.pop(worker)
            return Outcome(worker, None)

    def actor(self, worker: int) -> Any:
        """Ray's handle of a worker that was started."""
        return self._actors[worker]

    def processes(self) -> list[int]:
        """Ids of the processes of the workers that were started, on whichever machines."""
        return list(self._ray.get([actor.pid.remote() for actor in self._actors.values()]))

    def close(self) -> None:
        """End every worker; leave a cluster that was there before."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors, self._waiting = {}, {}
        if self._own:
            self._ray.shutdown()


class _Actor:
    """A `Worker` as Ray calls it."""

    def __init__(self, plan: tuple[list[str], bytes]) -> None:
        paths, sent = plan
        sys.path.extend(path for path in paths if path not in sys.path)  # where the user's own modules are
        self.worker = Worker(cloudpickle.loads(sent), number=0)  # Ray shows a worker its own GPUs alone
        self.newer: SentWeights | None = None

    def play(self, job: Job, version: int, key: str, held: list[Any]) -> Any:
        self.worker.take(_sent(version, key, held))
        return self.worker.play(job, self._newest)

    def renew(self, version: int, key: str, held: list[Any]) -> None:
        self.newer = _sent(version, key, held)

    def _newest(self) -> SentWeights | None:
        newer = self.newer
        return newer if newer and newer.version > self.worker.version else None

    def pid(self) -> int:
        return os.getpid()


def _sent(version: int, key: str, held: list[Any]) -> SentWeights:
    def fetch() -> Any:
        import ray

        return ray.get(held[0])

    return SentWeights(version, key, fetch)


def _connect(ray: Any, address: str | None) -> None:
    try:
        if found := ADDRESS.search(address or ""):
            socket.create_connection((found[1], int(found[2])), LOOK_S).close()  # Ray would try for minutes
        with _own_signals():
            ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
    except Exception as error:
        raise ValueError(
            f"no Ray cluster: expected one at '{address or 'this machine'}', got {_reason(error)}; start it with "
            "`ray start --head`, or set model.rollout.workers.address"
        ) from error


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray handles SIGTERM by ending the process; give this process its own handlers back, which write a checkpoint."""
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not in the main thread
            for each, handler in handlers.items():
                signal.signal(each, handler)


def lacking(wanted: Mapping[str, float], count: int, cluster: Mapping[str, float]) -> str:
    """What to say where a cluster has not enough for all workers: Ray lets jobs of the others wait, without a word.

    >>> lacking({"num_cpus": 1.0}, 2, {"CPU": 2.0})
    ''
    >>> lacking({"num_gpus": 0.5}, 3, {"CPU": 8.0, "GPU": 1.0})[:69]
    'not all of 3 Ray workers can run: expected num_gpus 1.5, got 1 in the'
    """
    names = {"num_cpus": "CPU", "num_gpus": "GPU"}
    for name, number in wanted.items():
        there = cluster.get(names.get(name, name), 0.0)
        if number * count > there:
            return (
                f"not all of {count} Ray workers can run: expected {name} {number * count:g}, got {there:g} in the "
                "cluster"
            )
    return ""


def _options(resources: Mapping[str, float]) -> dict[str, Any]:
    """Ray's options for an actor.

    >>> _options({"num_gpus": 0.5, "shop": 1.0})
    {'num_gpus': 0.5, 'resources': {'shop': 1.0}}
    """
    own = {name: number for name, number in resources.items() if name in ("num_cpus", "num_gpus", "memory")}
    other = {name: number for name, number in resources.items() if name not in own}
    return {**own, **({"resources": other} if other else {})}


def _reason(error: BaseException) -> str:
    """The last line of what Ray reports is the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
