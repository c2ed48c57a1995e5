"""How long the contexts of tasks can become."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_mem1.context.contexts import kept, next_kind
from lightning_mem1.context.encoder import ContextEncoder
from lightning_mem1.context.memory import size
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
    encoder = encoder.with_actions(mode.actions)
    about = mode.about(encoder.format.tags)
    shapes = {(len(encoder.prompt_ids(task, shown, mode.staged, about)), task.max_turns) for task, shown in tasks}
    limits = (max_new_tokens, encoder.max_information_tokens)
    given = (len(encoder.memory_opening()), len(encoder.turn_opening(mode.staged)))
    note = len(encoder.note_ids(mode.left_out()))
    return max((longest_context(*shape, *limits, mode, *given, note) for shape in shapes), default=2)


def longest_context(
    prompt_tokens: int,
    max_turns: int,
    action_tokens: int,
    information_tokens: int,
    memory: MemorySetting,
    opening_tokens: int = 0,
    turn_opening_tokens: int = 0,
    note_tokens: int = 0,
) -> int:
    """Most tokens that a context and the turn written in it can have together, over an episode of `max_turns`.

    With at most 4 tokens a turn, 10 a reply, a prompt of 20, openings of 1 and 6 turns::

        mem1       20 + 1 * 14 + 4 = 38, whatever the horizon
        full       20 + 5 * 14 + 4 = 94
        summary    20 + 5 + 14 + 5 = 44, where the memory is written
        compaction its budget + 5, once the turns pass it

    Args:
        prompt_tokens: Tokens of the prompt.
        max_turns: Turns of the episode.
        action_tokens: Most tokens of a turn.
        information_tokens: Most tokens of a reply.
        memory: Memory mode.
        opening_tokens: Tokens put before a memory that is to be written.
        turn_opening_tokens: Tokens put before each turn that acts.
        note_tokens: Tokens that stand for a reply that is left out.
    """
    mode, longest = memory_mode(memory), 0
    act = Turn([0] * action_tokens, [], [0] * information_tokens, opening_ids=[0] * turn_opening_tokens)
    act.note_ids, opening = [0] * note_tokens, [0] * opening_tokens
    turns: list[Turn] = []
    for _ in range(max_turns):
        if turns and next_kind(turns, mode, prompt_tokens) == "memory":
            written_in = max(size(kept(mode, turns, "memory")), mode.most_tokens(prompt_tokens) - prompt_tokens)
            longest = max(longest, written_in + opening_tokens)
            turns.append(Turn(act.action_ids, [], kind="memory", opening_ids=opening))
        longest = max(longest, size(kept(mode, turns)) + turn_opening_tokens)
        turns.append(act)
    return prompt_tokens + longest + action_tokens
