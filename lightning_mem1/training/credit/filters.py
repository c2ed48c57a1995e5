"""Which trajectories an update may learn from, and how many it may not, by reason.

What happens to each kind of bad input:

| input | what happens | logged as |
| --- | --- | --- |
| broken environment | left out of every comparison, advantage 0 | ``rollout/stop_error`` |
| reward that is nan or infinite | likewise | ``train/bad_rewards`` |
| value of the critic that is nan or infinite | likewise | ``train/bad_values`` |
| no action token at all | likewise; it still counts as a trajectory of the loss | ``train/empty_trajectories`` |
| the last one left of a group, by the above | no baseline in the group: advantage 0 (where groups are compared) | |
| a group of one from the start | keeps its raw reward | ``train/lone_groups`` |
| all rewards of a group equal | advantages exactly 0 | ``train/zero_signal_groups`` |
| a turn cut off at its token limit | trained on; `model.shaping` may punish it | ``train/overlong_turns`` |
| an episode that no environment ended | trained on; `model.credit.mask_overlong` leaves it out | ``rollout/stop_*`` |
| not kept by raft | advantage 0, and it does not count in the loss | ``train/kept_trajectories`` counts the others |
| a log-prob of the engine that is no number | the next line; with `model.mismatch` only its token weighs 0 | |
| a loss or gradient that is not finite | no optimizer step | ``train/skipped_updates`` |
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_mem1.types import StopReason, Trajectory


def sound(trajectories: Sequence[Trajectory], relative: bool = True) -> list[int]:
    """Indices of the trajectories that credit is given to.

    Args:
        trajectories: Everything that was played.
        relative: Groups are compared, so one that is left alone by broken ones is left out too.
    """
    found = [
        i
        for i, t in enumerate(trajectories)
        if t.stop_reason != StopReason.ERROR and num_action_tokens(t) and math.isfinite(t.reward)
    ]
    if not relative:
        return found
    sizes = Counter(t.group for t in trajectories)
    left = Counter(trajectories[i].group for i in found)
    return [i for i in found if left[trajectories[i].group] > 1 or sizes[trajectories[i].group] == 1]


def unended(trajectory: Trajectory) -> bool:
    """Whether it was ended by the turn budget or by the engine's context, not by its environment."""
    return trajectory.stop_reason in (StopReason.MAX_TURNS, StopReason.CONTEXT)


def num_action_tokens(trajectory: Trajectory) -> int:
    """Action tokens of all turns."""
    return sum(len(turn.action_ids) for turn in trajectory.turns)


def bad_input(trajectories: Sequence[Trajectory], max_new_tokens: int) -> dict[str, float]:
    """How many there are of each kind that is counted, by metric name without its prefix."""
    turns = [turn for t in trajectories for turn in t.turns]
    return {
        "bad_rewards": float(sum(not math.isfinite(t.reward) for t in trajectories)),
        "empty_trajectories": float(sum(not num_action_tokens(t) for t in trajectories)),
        "lone_groups": float(sum(size == 1 for size in Counter(t.group for t in trajectories).values())),
        "overlong_turns": float(sum(len(turn.action_ids) >= max_new_tokens for turn in turns)),
    }


def bad_values(values: Sequence[Tensor]) -> float:
    """How many trajectories have a value that is no number; (T,) by trajectory."""
    return float(sum(not bool(torch.isfinite(column).all()) for column in values))


def token_counts(trajectories: Sequence[Trajectory]) -> dict[str, int]:
    """How many trajectories, turns and action tokens there are, by the names of `losses.token_weights`."""
    return {
        "num_trajectories": len(trajectories),
        "num_turns": sum(len(t.turns) for t in trajectories),
        "num_tokens": sum(map(num_action_tokens, trajectories)),
    }


def groups_without_signal(trajectories: Sequence[Trajectory]) -> list[int]:
    """Groups of more than one whose sound rewards are all equal: comparing them teaches nothing."""
    rewards: dict[int, set[float]] = {t.group: set() for t in trajectories}
    for i in sound(trajectories, relative=False):
        rewards[trajectories[i].group].add(float(trajectories[i].reward))
    sizes = Counter(t.group for t in trajectories)
    return [group for group, found in rewards.items() if len(found) < 2 and sizes[group] > 1]


def counted_in_loss(
    trajectories: Sequence[Trajectory], has_signal: Sequence[bool], imitates: bool, drops_no_signal: bool
) -> list[int]:
    """Indices of the trajectories that the mean of the loss is over, whether they have a signal or not.

    Args:
        trajectories: Everything that was played.
        has_signal: Whether a trajectory has an advantage.
        imitates: Only what has credit counts.
        drops_no_signal: Groups without a signal do not count.
    """
    groups = groups_with_signal(trajectories, has_signal)
    return [
        i
        for i, t in enumerate(trajectories)
        if has_signal[i] or not (imitates or drops_no_signal and t.group not in groups)
    ]


def groups_with_signal(trajectories: Sequence[Trajectory], has_signal: Sequence[bool]) -> set[int]:
    """The groups of which at least one trajectory has an advantage."""
    return {t.group for t, signal in zip(trajectories, has_signal, strict=True) if signal}


def check_room(num_fitting: float, num_outgrown: int, rl_step: int, max_context_tokens: int) -> None:
    """Raise ValueError when no trajectory of any rank had room for its contexts: nothing could ever be learnt."""
    if num_fitting == 0:
        raise ValueError(
            f"contexts do not fit the engine: expected room for an episode, got all {num_outgrown} trajectories of "
            f"rl_step {rl_step} cut off at {max_context_tokens} tokens; raise model.engine.max_context_tokens"
        )
