"""Newer weights for episodes that are under way.

Turns that run are finished with the weights that they began with, those that are asked for meanwhile wait, and then the
engine takes the newest weights. So each turn is sampled by one version, which it knows, and its log-probabilities are
those of that version, whatever the engine::

    turn 1 of episode A   v v v v v | w w w w w w    (| newer weights are there: A's next turn waits for B's)
    turn 2 of episode B   v v v v v v v | w w w w
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lightning_mem1.engine.factory import AnyEngine
from lightning_mem1.rollout.workers.job import SentWeights
from lightning_mem1.types import Completion, GenerationRequest


class RenewableEngine:
    """An engine that takes newer weights between turns; satisfies `types.Engine`.

    Args:
        engine: What generates.
        version: Says which rl_step its weights are of.
        newer: Newer weights that have come since it was asked last, None for none. Asked before each step.
        take: Puts weights into the engine's policy.
    """

    def __init__(
        self,
        engine: AnyEngine,
        version: Callable[[], int],
        newer: Callable[[], SentWeights | None],
        take: Callable[[SentWeights], None],
    ) -> None:
        self.engine, self._version, self._newer, self._take = engine, version, newer, take
        self._next: SentWeights | None = None
        self._held: list[GenerationRequest] = []

    @property
    def policy(self) -> Any:
        """The engine's policy."""
        return self.engine.policy

    @property
    def max_context_tokens(self) -> int:
        """That of the engine."""
        return self.engine.max_context_tokens

    @property
    def pending(self) -> int:
        """Turns queued, running, or waiting for newer weights."""
        return self.engine.pending + len(self._held)

    def reset(self) -> None:
        """Forget queued turns and cached keys."""
        self._held = []
        self.engine.reset()

    def submit(self, request: GenerationRequest) -> None:
        """Queue one turn; see `types.Engine.submit`."""
        if self._next is None:
            self.engine.submit(request)
        else:
            self._held.append(request)

    def step(self) -> list[Completion]:
        """One step of the engine, with newer weights if nothing runs; each turn that ended has its version."""
        self._next = self._newer() or self._next
        if self._next is not None and not self.engine.pending:
            self._renew(self._next)
        return [replace(completion, version=self._version()) for completion in self.engine.step()]

    def _renew(self, weights: SentWeights) -> None:
        held, self._next = self._held, None
        self._take(weights)
        self.reset()
        for request in held:
            self.engine.submit(request)
