"""Reward shaping: turns that run into their token limit, internal states beyond a budget, long main threads, failures.

Off by default. A penalty belongs to a turn, so credit that flows in time finds the turn that earned it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_mem1.context.contexts import Contexts
from lightning_mem1.context.memory import standing
from lightning_mem1.types import Trajectory, Turn


@dataclass
class ShapingSettings:
    """What length and failure cost, in units of reward.

    Args:
        overlong_buffer_tokens: The last tokens before a turn's limit, over which the punishment rises; 0 for none
            (DAPO's soft overlong punishment, arXiv 2503.14476, equation 13).
        overlong_penalty: What a turn that reaches its limit costs.
        state_budget_tokens: Tokens of internal state that cost nothing.
        state_penalty: What each further token of an internal state costs; 0 for none.
        main_budget_tokens: Tokens of context, prompt included, that cost nothing in the main thread (memory mode
            `fold`; in others every turn is in it). FoldGRPO (arXiv 2510.11967) takes half of the limit.
        main_penalty: What a turn of the main thread that does not branch costs beyond that; 0 for none, FoldGRPO 1.
        failed_penalty: What an act that is invalid costs; 0 for none, FoldGRPO 1.
    """

    overlong_buffer_tokens: int = 0
    overlong_penalty: float = 1.0
    state_budget_tokens: int = 0
    state_penalty: float = 0.0
    main_budget_tokens: int = 0
    main_penalty: float = 0.0
    failed_penalty: float = 0.0

    @property
    def on(self) -> bool:
        """True when anything costs anything."""
        overlong = self.overlong_buffer_tokens and self.overlong_penalty
        return bool(overlong or self.state_penalty or self.main_penalty or self.failed_penalty)


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
    contexts: Contexts | None = None,
) -> list[list[float]]:
    """Reward of each turn, by trajectory, what its length and its failure cost taken off.

    FoldGRPO's process rewards go to the tokens of their turn alone, by the side of the episode's advantage; here they
    are rewards of the turn, so how far they reach is the algorithm's to say.

    Args:
        trajectories: What was played.
        state_lengths: Tokens of the internal state of each turn, by trajectory.
        settings: What costs what.
        max_new_tokens: The limit of a turn.
        contexts: The contexts of the trajectories; None for those of `mem1`.
    """

    def cost(turn: Turn, state: int, crowded: bool) -> float:
        late = overlong(len(turn.action_ids), max_new_tokens, settings.overlong_buffer_tokens)
        over = max(state - settings.state_budget_tokens, 0)
        failed = turn.kind == "act" and not turn.valid
        lengths = settings.overlong_penalty * late + settings.state_penalty * over
        return lengths + settings.main_penalty * crowded + settings.failed_penalty * failed

    known, shaped = contexts or Contexts(), []
    for trajectory, states in zip(trajectories, state_lengths, strict=True):
        crowds = _crowded(trajectory, settings, known) if settings.main_penalty else [False] * len(states)
        turns = zip(trajectory.turns, states, crowds, strict=True)
        shaped.append([float(turn.reward) - cost(turn, state, crowded) for turn, state, crowded in turns])
    return shaped


def _crowded(trajectory: Trajectory, settings: ShapingSettings, contexts: Contexts) -> list[bool]:
    """Whether each turn is one of a main thread beyond its budget, and does not branch."""
    memory, turns = contexts.memory, trajectory.turns
    return [
        length > settings.main_budget_tokens
        and not memory.aside(standing(turns[:number]))
        and not memory.aside(standing(turns[: number + 1]))
        for number, length in enumerate(contexts.lengths(trajectory))
    ]
