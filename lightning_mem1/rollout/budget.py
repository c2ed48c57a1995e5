"""How long the contexts of tasks can become."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_mem1.context.memory import longest_context
from lightning_mem1.policy.policy import Policy
from lightning_mem1.rollout.collect import prompt_ids
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import Task


def longest_of(
    tasks: Sequence[tuple[Task, str]], policy: Policy, settings: RolloutSettings, mode: str, window: int = 2
) -> int:
    """Longest context that any of these tasks can come to, the turn written in it included, in tokens; 2 without tasks.

    Args:
        tasks: Each with what its environment shows before the first turn.
        policy: Its tokenizer counts.
        settings: Limits of turns and replies.
        mode: Memory mode.
        window: Turns kept by mode `window`, retrieved by mode `amem`.
    """
    opening = len(policy.tokenizer.encode(settings.tags.state_opening, add_special_tokens=False))
    return max(
        (
            longest_context(
                len(prompt_ids(task, observation, policy.tokenizer, settings, mode)),
                task.max_turns,
                settings.max_new_tokens,
                settings.max_information_tokens,
                mode,
                window,
                opening,
            )
            for task, observation in tasks
        ),
        default=2,
    )
