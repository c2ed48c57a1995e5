"""What an agent does again because it has lost sight of it."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_mem1.context.contexts import Contexts
from lightning_mem1.context.origins import token_origins
from lightning_mem1.types import Trajectory, Turn

RECALL = "recall"  # the directive of a turn that fetches others back


def repeated_actions(trajectory: Trajectory, contexts: Contexts) -> int:
    """Acts whose action had been carried out before and whose replies were, all of them, in the context no more.

    A reply that is there in part, or as a note, counts as gone. In `full` there are none, whatever was done; with
    actions a, b, a, a in `mem1`::

        a b a a    the third counts, the fourth sees the reply to the third
    """
    acts = [number for number, turn in enumerate(trajectory.turns) if turn.kind == "act"]
    pairs = [(number, _earlier(trajectory.turns, number)) for number in acts]
    candidates = [(number, earlier) for number, earlier in pairs if earlier]
    if not candidates:
        return 0
    origins, replies = token_origins(trajectory, contexts), _reply_places(trajectory)
    return sum(
        not any(set(replies[each]) <= seen for each in earlier)
        for number, earlier in candidates
        for seen in [set(origins[number])]
    )


def recalls(trajectory: Trajectory) -> list[float]:
    """One number for each act: 1 where it fetched turns back that had left its context."""
    return [float(turn.directive is not None and turn.directive.name == RECALL) for turn in trajectory.acts]


def _earlier(turns: Sequence[Turn], number: int) -> list[int]:
    """Earlier acts with the same action that were carried out and replied to."""
    action = turns[number].action
    return [
        before
        for before, turn in enumerate(turns[:number])
        if action is not None and turn.action == action and turn.valid and turn.information_ids
    ]


def _reply_places(trajectory: Trajectory) -> list[range]:
    """Where the reply to each turn is in the single copy."""
    start, found = len(trajectory.prompt_ids), []
    for turn in trajectory.turns:
        start += len(turn.ids)
        found.append(range(start, start + len(turn.information_ids)))
        start += len(turn.information_ids)
    return found
