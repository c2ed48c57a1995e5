"""Reward shaping by length: turns that run into their token limit, internal states beyond a budget.

Off by default. A penalty belongs to a turn, so credit that flows in time finds the turn that earned it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_mem1.types import Trajectory


@dataclass
class ShapingSettings:
    """What length costs, in units of reward.

    Args:
        overlong_buffer_tokens: The last tokens before a turn's limit, over which the punishment rises; 0 for none
            (DAPO's soft overlong punishment, arXiv 2503.14476, equation 13).
        overlong_penalty: What a turn that reaches its limit costs.
        state_budget_tokens: Tokens of internal state that cost nothing.
        state_penalty: What each further token of an internal state costs; 0 for none.
    """

    overlong_buffer_tokens: int = 0
    overlong_penalty: float = 1.0
    state_budget_tokens: int = 0
    state_penalty: float = 0.0

    @property
    def on(self) -> bool:
        """True when any length costs anything."""
        return bool(self.overlong_buffer_tokens and self.overlong_penalty) or bool(self.state_penalty)


def overlong(length: int, limit: int, buffer: int) -> float:
    """0 up to `limit - buffer` tokens, then rising to 1 at the limit.

    >>> [overlong(n, limit=10, buffer=4) for n in (6, 7, 10)]
    [0.0, 0.25, 1.0]
    """
    return min(max(length - (limit - buffer), 0) / buffer, 1.0) if buffer else 0.0


def shaped_rewards(
    trajectories: Sequence[Trajectory],
    state_lengths: Sequence[Sequence[int]],
    settings: ShapingSettings,
    max_new_tokens: int,
) -> list[list[float]]:
    """Reward of each turn, by trajectory, what its length costs taken off.

    Args:
        trajectories: What was played.
        state_lengths: Tokens of the internal state of each turn, by trajectory.
        settings: What length costs.
        max_new_tokens: The limit of a turn.
    """

    def cost(length: int, state: int) -> float:
        late = overlong(length, max_new_tokens, settings.overlong_buffer_tokens)
        over = max(state - settings.state_budget_tokens, 0)
        return settings.overlong_penalty * late + settings.state_penalty * over

    return [
        [float(turn.reward) - cost(len(turn.action_ids), state) for turn, state in zip(t.turns, states, strict=True)]
        for t, states in zip(trajectories, state_lengths, strict=True)
    ]
