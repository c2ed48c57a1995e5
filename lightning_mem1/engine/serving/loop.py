"""Runs a local engine for many callers: one thread makes the passes, callers wait for their turns.

Turns of one model run together. A turn of another model waits until those before it have ended, because a pass has
one set of weights.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any

from lightning_mem1.engine.factory import local_engine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.adapter_pool import AdapterPool
from lightning_mem1.policy.policy import Policy
from lightning_mem1.policy.whole_weights import put_weights, read_weights
from lightning_mem1.types import Completion, GenerationRequest


class NoAdapter(ValueError):
    """An adapter that is not loaded, or not any more."""


@dataclass
class _Job:
    """A turn of a model, or a change of what is served; `future` gets what comes of it."""

    future: Future[Any]
    request: GenerationRequest | None = None
    adapter: str | None = None
    change: Callable[[], None] | None = None


class EngineLoop:
    """A local engine behind a queue; its methods may be called from any thread, and wait but for `begin`.

    Args:
        policy: Without an adapter of its own, in evaluation mode.
        settings: Of the local engine.
    """

    def __init__(self, policy: Policy, settings: EngineSettings) -> None:
        self.engine = local_engine(policy, settings)
        self.adapters = AdapterPool(policy)
        self.weights: str | None = None  # name of those that took the place of the policy's own
        self._inbox: SimpleQueue[_Job] = SimpleQueue()
        self._waiting: deque[_Job] = deque()
        self._running: dict[int, _Job] = {}
        self._adapter: str | None = None
        self._sessions = 0
        threading.Thread(target=self._run, daemon=True, name="engine").start()

    def complete(self, request: GenerationRequest, adapter: str | None = None) -> Completion:
        """Generate a turn with an adapter, or with none.

        Raises:
            ValueError: it does not fit the engine; `NoAdapter` when there is no such adapter.
        """
        return self.begin(request, adapter).result()

    def begin(self, request: GenerationRequest, adapter: str | None = None) -> Future[Completion]:
        """As `complete`, without waiting: what it would raise is in the future."""
        done: Future[Completion] = Future()
        self._inbox.put(_Job(done, request, adapter))
        return done

    def load(self, name: str, folder: str) -> None:
        """Load an adapter between turns; raises ValueError, see `AdapterPool`."""
        self._change(lambda: self.adapters.load(name, folder))

    def unload(self, name: str) -> None:
        """Forget an adapter between turns; raises ValueError when there is none of that name."""
        self._change(lambda: self.adapters.unload(name))

    def load_weights(self, name: str, folder: str) -> None:
        """Put the weights of a folder in the place of the policy's, between turns.

        Raises:
            ValueError: they do not fit, or cannot be read; the policy stays as it is.
        """
        policy = self.engine.policy
        weights = read_weights(policy, folder)  # in the caller's thread: turns continue meanwhile

        def change() -> None:
            put_weights(policy, weights)
            self.engine.reset()  # keys that are cached are the other weights'
            self.weights = name

        self._change(change)

    def _change(self, change: Callable[[], None]) -> None:
        done: Future[None] = Future()
        self._inbox.put(_Job(done, change=change))
        done.result()

    def _run(self) -> None:
        while True:
            self._receive()
            while self._waiting and self._admit(self._waiting[0]):
                self._waiting.popleft()
            if self._running:
                self._pass()

    def _receive(self) -> None:
        """Take in all jobs that are there; wait for one when there is nothing else to do."""
        if not self._waiting and not self._running:
            self._waiting.append(self._inbox.get())
        while True:
            try:
                self._waiting.append(self._inbox.get_nowait())
            except Empty:
                return

    def _admit(self, job: _Job) -> bool:
        """Begin a job, or end it with what is wrong with it; False when it has to wait."""
        alone = job.change is not None or job.adapter != self._adapter
        if alone and self._running:
            return False
        if not job.future.set_running_or_notify_cancel():  # from here on no caller can cancel it
            return True
        try:
            if job.change is not None:
                self._switch(None)  # whatever is loaded or dropped is not the one that acts
                job.change()
                job.future.set_result(None)
            else:
                self._begin(job)
        except Exception as error:
            job.future.set_exception(error)
        return True

    def _begin(self, job: _Job) -> None:
        assert job.request is not None
        self._switch(job.adapter)
        self.engine.submit(replace(job.request, session=self._sessions))
        self._running[self._sessions] = job
        self._sessions += 1

    def _switch(self, adapter: str | None) -> None:
        """Let another model act; whatever keys are cached are the other one's."""
        if adapter is not None and adapter not in self.adapters.names:
            raise NoAdapter(f"no adapter '{adapter}': expected one of {', '.join(self.adapters.names) or 'none'}")
        if adapter != self._adapter:
            self.adapters.switch(adapter)
            self.engine.reset()
            self._adapter = adapter

    def _pass(self) -> None:
        try:
            for completion in self.engine.step():
                self._running.pop(completion.session).future.set_result(completion)
        except Exception as error:  # out of memory, say: its callers get the error, the next ones are served
            for job in self._running.values():
                job.future.set_exception(error)
            self._running.clear()
            self.engine.reset()
