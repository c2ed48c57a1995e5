"""Memory modes: which ids the policy sees next, given the prompt and the turns so far.

A mode only chooses *which turns stay*, whole and as ids; it never decodes, cuts or rewrites them. Adding a mode
is adding one function to `MODES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from lightning_mem1.types import Trajectory, Turn

Kept = list[Sequence[int]]


def _mem1(turns: Sequence[Turn], window: int) -> Kept:
    """The last turn only: its internal state, its action and the reply (MEM1, arXiv 2506.15841, section 3.2)."""
    return _whole(turns[-1:])


def _full(turns: Sequence[Turn], window: int) -> Kept:
    """Every turn: the context grows with the horizon (ReAct)."""
    return _whole(turns)


def _window(turns: Sequence[Turn], window: int) -> Kept:
    """The last `window` turns."""
    return _whole(turns[-window:])


def _none(turns: Sequence[Turn], window: int) -> Kept:
    """No history: the latest reply without the turn that asked for it."""
    return [turn.information_ids for turn in turns[-1:]]


MODES: dict[str, Callable[[Sequence[Turn], int], Kept]] = {
    "mem1": _mem1,
    "full": _full,
    "window": _window,
    "none": _none,
}


def check_mode(mode: str, window: int = 2) -> None:
    """Raise ValueError when `mode` is not a memory mode or `window` is not a positive number."""
    if mode not in MODES:
        raise ValueError(f"unknown memory mode: expected one of {', '.join(MODES)}, got '{mode}'; set model.memory")
    if window < 1:
        raise ValueError(f"window too small: expected at least 1 turn, got {window}; set model.window")


def context_ids(prompt_ids: Sequence[int], turns: Sequence[Turn], mode: str = "mem1", window: int = 2) -> list[int]:
    """Ids of the context in which the turn after `turns` is generated.

    With prompt P and turns (A0, I0), (A1, I1), the next context is::

        mem1       P A1 I1
        full       P A0 I0 A1 I1
        window=1   P A1 I1
        none       P I1
    """
    check_mode(mode, window)
    return [*prompt_ids, *chain.from_iterable(MODES[mode](turns, window))]


def contexts(trajectory: Trajectory, mode: str = "mem1", window: int = 2) -> list[list[int]]:
    """The context of each turn of a trajectory, in order."""
    turns = trajectory.turns
    return [context_ids(trajectory.prompt_ids, turns[:t], mode, window) for t in range(len(turns))]


def longest_context(
    prompt_tokens: int, max_turns: int, action_tokens: int, information_tokens: int, mode: str, window: int = 2
) -> int:
    """Most tokens that a context and the turn written in it can have together, over an episode of `max_turns`.

    With at most 4 tokens a turn, 10 a reply, a prompt of 20 and 6 turns::

        mem1       20 + 1 * 14 + 4 = 38, whatever the horizon
        full       20 + 5 * 14 + 4 = 94

    Args:
        prompt_tokens: Tokens of the prompt.
        max_turns: Turns of the episode.
        action_tokens: Most tokens of a turn.
        information_tokens: Most tokens of a reply.
        mode: Memory mode.
        window: Turns kept by mode `window`.
    """
    turn = Turn([0] * action_tokens, [], [0] * information_tokens)
    last = context_ids(
        [0] * prompt_tokens, [turn] * max(0, max_turns - 1), mode, window
    )  # none is longer than the last
    return len(last) + action_tokens


def drift(trajectory: Trajectory, mode: str = "mem1", window: int = 2) -> int:
    """Number of turns whose context, derived now, is not what the engine was given when they were sampled.

    Training derives contexts from ids, so this stays 0. Anything else means that ids, the memory mode or its window
    have changed since the rollout, and that training would not see what the rollout saw.
    """
    derived = contexts(trajectory, mode, window)
    kept = [turn.context_hash for turn in trajectory.turns]
    return sum(k is not None and k != context_hash(ids) for k, ids in zip(kept, derived, strict=True))


def context_hash(ids: Sequence[int]) -> int:
    """What `Turn.context_hash` holds for a context."""
    return hash(tuple(ids))


def _whole(turns: Sequence[Turn]) -> Kept:
    return [ids for turn in turns for ids in (turn.action_ids, turn.information_ids)]
