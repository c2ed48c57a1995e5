"""How long the contexts of tasks can become."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_mem1.context.contexts import kept, next_kind
from lightning_mem1.context.encoder import ContextEncoder
from lightning_mem1.context.memory import MemoryMode
from lightning_mem1.context.settings import MemorySetting, memory_mode
from lightning_mem1.types import Task, Turn


def longest_of(
    tasks: Sequence[tuple[Task, str]], encoder: ContextEncoder, max_new_tokens: int, memory: MemorySetting
) -> int:
    """Longest context that any of these tasks can come to, the turn written in it included, in tokens; 2 without tasks.

    Args:
        tasks: Each with what its environment shows before the first turn.
        encoder: The policy's.
        max_new_tokens: Limit of a turn.
        memory: Memory mode.
    """
    mode = memory_mode(memory)
    shapes = {(len(encoder.prompt_ids(task, shown, mode.staged)), task.max_turns) for task, shown in tasks}
    limits = (max_new_tokens, encoder.max_information_tokens)
    openings = len(encoder.memory_opening()), len(encoder.turn_opening(mode.staged))
    return max((longest_context(*shape, *limits, mode, *openings) for shape in shapes), default=2)


def longest_context(
    prompt_tokens: int,
    max_turns: int,
    action_tokens: int,
    information_tokens: int,
    memory: MemorySetting,
    opening_tokens: int = 0,
    turn_opening_tokens: int = 0,
) -> int:
    """Most tokens that a context and the turn written in it can have together, over an episode of `max_turns`.

    With at most 4 tokens a turn, 10 a reply, a prompt of 20, openings of 1 and 6 turns::

        mem1       20 + 1 * 14 + 4 = 38, whatever the horizon
        full       20 + 5 * 14 + 4 = 94
        summary    20 + 5 + 14 + 5 = 44, where the memory is written

    Args:
        prompt_tokens: Tokens of the prompt.
        max_turns: Turns of the episode.
        action_tokens: Most tokens of a turn.
        information_tokens: Most tokens of a reply.
        memory: Memory mode.
        opening_tokens: Tokens put before a memory that is to be written.
        turn_opening_tokens: Tokens put before each turn that acts.
    """
    mode, longest = memory_mode(memory), 0
    act = Turn([0] * action_tokens, [], [0] * information_tokens, opening_ids=[0] * turn_opening_tokens)
    opening = [0] * opening_tokens
    turns: list[Turn] = []
    for _ in range(max_turns):
        if turns and next_kind(turns, mode, prompt_tokens) == "memory":
            longest = max(longest, _length(mode, turns) + opening_tokens)
            turns.append(Turn(act.action_ids, [], kind="memory", opening_ids=opening))
        longest = max(longest, _length(mode, turns) + turn_opening_tokens)
        turns.append(act)
    return prompt_tokens + longest + action_tokens


def _length(mode: MemoryMode, turns: Sequence[Turn]) -> int:
    """Tokens behind the prompt after some turns."""
    return sum(map(len, kept(mode, turns)))
