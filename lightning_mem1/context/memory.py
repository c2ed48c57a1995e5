"""Memory modes: which ids the policy sees next, given the prompt and the turns so far.

A mode only chooses *which turns stay*, whole and as ids; it never decodes, cuts or rewrites them. Adding a mode
is adding one function to `MODES`. In the modes of `STAGED` the policy is called once more after each reply, to write
the memory: that call is a turn of its own, of kind ``memory``, and the mode chooses what it sees as for any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from lightning_mem1.checks import check_choice
from lightning_mem1.context.amem import dots, nearest, related
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


def _summary(turns: Sequence[Turn], window: int) -> Kept:
    """The memory and the latest reply; for the turn that writes it anew, the old one, the latest turn and its reply.

    Memory and reasoning apart: the turn that acts writes no memory, and the turn that writes memory does not act. Both
    are the same policy's, and each may be as long as a turn of `mem1`.
    """
    acts, memories = ([turn for turn in turns if turn.kind == kind][-1:] for kind in ("act", "memory"))
    kept = [turn.ids for turn in memories]
    if memory_due("summary", turns):
        return [*kept, *_whole(acts)]
    return [*kept, *(turn.information_ids for turn in acts)]


def _amem(turns: Sequence[Turn], window: int) -> Kept:
    """The `window` earlier turns that have most to do with the last one, and the last one (A-MEM, arXiv 2502.12110).

    Deviations: a note is a whole turn as it was written and replied to, where the paper has a language model add
    keywords, tags and a description; notes are not linked and never rewritten; and unless `rollout.note_embedding`
    names a sentence encoder, as the paper has one, a note's embedding is the TF-IDF vector of its token ids (`notes`).
    So no language model is asked beside the policy, contexts follow from what stands in the turns, and a policy can be
    trained in this mode. As in the paper the notes nearest by cosine are retrieved; the query is the last turn, and the
    prompt with its questions always stays.
    """
    if not turns:
        return []
    *notes, query = ([*turn.ids, *turn.information_ids] for turn in turns)
    if all(turn.embedding for turn in turns):
        chosen = nearest(dots([turn.embedding for turn in turns[:-1]], turns[-1].embedding), window)
    else:
        chosen = related(notes, query, window)
    return _whole([*(turns[number] for number in chosen), turns[-1]])


MODES: dict[str, Callable[[Sequence[Turn], int], Kept]] = {
    "mem1": _mem1,
    "full": _full,
    "window": _window,
    "none": _none,
    "summary": _summary,
    "amem": _amem,
}
STAGED = frozenset({"summary"})  # modes in which a turn of its own writes the memory


def check_mode(mode: str, window: int = 2, key: str = "model.memory") -> None:
    """Raise ValueError when `mode`, found under `key`, is not a memory mode or `window` is not a positive number."""
    check_choice("memory mode", mode, MODES, key)
    if window < 1:
        raise ValueError(f"window too small: expected at least 1 turn, got {window}; set model.window")


def memory_due(mode: str, turns: Sequence[Turn]) -> bool:
    """Whether the turn after `turns` is one that writes the memory: after each act, in a staged mode."""
    left = standing(turns)
    return mode in STAGED and bool(left) and left[-1].kind == "act"


def standing(turns: Sequence[Turn]) -> list[Turn]:
    """The turns that later contexts may hold: those that were not written again."""
    return [turn for turn in turns if not turn.retried]


def context_ids(prompt_ids: Sequence[int], turns: Sequence[Turn], mode: str = "mem1", window: int = 2) -> list[int]:
    """Ids of the context in which the turn after `turns` is generated, without that turn's opening.

    With prompt P and turns (A0, I0), (A1, I1), the next context is::

        mem1       P A1 I1
        full       P A0 I0 A1 I1
        window=1   P A1 I1
        none       P I1
        amem       P A0 I0 A1 I1, and of more turns the `window` nearest to the last, and the last

    In mode summary, with the memory M0 written after I0, and the opening m put before it::

        (A0, I0)              P A0 I0              M0 is to be written
        (A0, I0) M0           P m M0 I0            A1 is to be taken
        (A0, I0) M0 (A1, I1)  P m M0 A1 I1         M1 is to be written

    A turn that was malformed and written again (`Turn.retried`) is in no context, in whatever mode::

        (A0, I0) (A1, I1), A1 retried    P A0 I0    in mem1 and in full
    """
    check_mode(mode, window)
    return [*prompt_ids, *chain.from_iterable(MODES[mode](standing(turns), window))]


def contexts(trajectory: Trajectory, mode: str = "mem1", window: int = 2) -> list[list[int]]:
    """The context of each turn of a trajectory, in order; it ends with the turn's opening, where it has one."""
    prompt, turns = trajectory.prompt_ids, trajectory.turns
    return [[*context_ids(prompt, turns[:t], mode, window), *turn.opening_ids] for t, turn in enumerate(turns)]


def act_number(trajectory: Trajectory, turn: int) -> int:
    """Which act a turn is, or the memory of which act it writes, counted from 0: (A0, M0, A1, M1) are 0, 0, 1, 1."""
    return sum(each.kind == "act" for each in trajectory.turns[: turn + 1]) - 1


def largest_by_act(trajectory: Trajectory, numbers: Sequence[int]) -> list[int]:
    """One number for each turn that acts: the larger of its own and of that of the memory written after it.

    With numbers of (A0, M0, A1)::

        5 9 7   ->   9 7
    """
    found: list[int] = []
    for turn, number in zip(trajectory.turns, numbers, strict=True):
        if turn.kind == "act":
            found.append(number)
        else:
            found[-1] = max(found[-1], number)
    return found


def longest_context(
    prompt_tokens: int,
    max_turns: int,
    action_tokens: int,
    information_tokens: int,
    mode: str,
    window: int = 2,
    opening_tokens: int = 0,
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
        mode: Memory mode.
        window: Turns kept by mode `window`, retrieved by mode `amem`.
        opening_tokens: Tokens put before a memory that is to be written.
    """
    prompt = [0] * prompt_tokens
    turns = _longest_turns(max_turns - 1, action_tokens, information_tokens, mode, opening_tokens)
    lengths = [  # none is longer than the last act's, or that of the memory before it
        len(context_ids(prompt, turns[:t], mode, window)) + opening_tokens * memory_due(mode, turns[:t])
        for t in range(max(0, len(turns) - 1), len(turns) + 1)
    ]
    return max(lengths) + action_tokens


def _longest_turns(number: int, action_tokens: int, information_tokens: int, mode: str, opening: int) -> list[Turn]:
    """The turns before the last act, each as long as it can be."""
    turns: list[Turn] = []
    for _ in range(number):
        turns.append(Turn([0] * action_tokens, [], [0] * information_tokens))
        if memory_due(mode, turns):
            turns.append(Turn([0] * action_tokens, [], kind="memory", opening_ids=[0] * opening))
    return turns


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
    return [ids for turn in turns for ids in (turn.ids, turn.information_ids)]
