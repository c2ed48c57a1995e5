"""What every adapter's environment does alike, around a game of somebody else's."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any, Protocol

from lightning_mem1.types import StepResult


class Game(Protocol):
    """One episode of somebody else's environment, from its beginning to its end."""

    def begin(self) -> str:
        """Begin, and return what the agent sees first."""
        ...

    def parse(self, action: str) -> Any:
        """What the agent's words mean; raises ValueError, which says why, for words that mean nothing."""
        ...

    def act(self, action: Any) -> StepResult:
        """Carry out what was meant."""
        ...

    def close(self) -> None:
        """Let go of what the episode holds."""
        ...

    def abandon(self) -> None:
        """Let go as well, but wait for nothing: the garbage collector calls it, in any thread."""
        ...


class GameEnv:
    """Single-use environment of a game; satisfies `types.Env`.

    The game begins at the first look, in the rollout's time limit, and is closed at its end, or when nobody holds the
    environment any more. What cannot be parsed never reaches it: the reply says why and shows again what was last seen.

    Args:
        game: The episode.
        success_at: Sum of rewards from which on an episode that ended counts as a success; None where the game says it.
    """

    def __init__(self, game: Game, success_at: float | None = None) -> None:
        self.game, self._success_at = game, success_at
        self._abandoned = weakref.finalize(self, game.abandon)
        self._abandoned.atexit = False  # a process that ends closes its connections by itself
        self._shown: str | None = None
        self._repeated = ""  # the latest reply; what was seen first stays in the prompt
        self._over, self._total = False, 0.0

    def observe(self) -> str:
        """Return what the agent saw last."""
        if self._shown is None:
            self._shown = self.game.begin()
        return self._shown

    def step(self, action: str) -> StepResult:
        """Carry out one action."""
        if self._over:
            return StepResult("", done=True, valid=False, info={"invalid": "the episode is over"})
        self.observe()
        if not action.strip():
            return self._refused("no action")
        try:
            meant = self.game.parse(action)
        except ValueError as error:
            return self._refused(" ".join(str(error).split()))
        result = self.game.act(meant)
        self._total += result.reward
        self._shown = self._repeated = result.information
        if not result.done:
            return result
        self._over = True
        self._abandoned.detach()
        self.game.close()
        return replace(result, info=self._ended(dict(result.info)))

    def _ended(self, info: dict[str, Any]) -> dict[str, Any]:
        if self._success_at is not None:
            info["success"] = float(self._total >= self._success_at)
        return info

    def _refused(self, why: str) -> StepResult:
        text = f"Invalid action: {why}."
        return StepResult(f"{text}\n{self._repeated}".rstrip(), valid=False, info={"invalid": why})
