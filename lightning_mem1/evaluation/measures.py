"""Trajectories in numbers: the one definition of every measure, for the metrics of a training and for every table.

A measure is a name and the numbers that are averaged under it: one of a trajectory, one of each of its turns, or one of
each group. Nothing is left out: a trajectory without an answer, or one that failed before its first turn, counts with
its zeros.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from lightning_mem1.context.contexts import largest_by_act
from lightning_mem1.context.internal_state import copy_rates, state_lengths, state_spans
from lightning_mem1.context.tags import exact_format, read_action
from lightning_mem1.evaluation.metrics import dependency, peak_tokens
from lightning_mem1.evaluation.reexploration import recalls, repeated_actions
from lightning_mem1.evaluation.view import View
from lightning_mem1.types import StopReason, Trajectory, Turn

Numbers = dict[str, list[float]]  # what is averaged, by the name of a measure


@dataclass(frozen=True)
class Measure:
    """A column: its key, and on screen the words that stand for it, the digits after the point, and the unit."""

    name: str
    label: str
    digits: int = 3
    unit: float = 1.0


MEASURES = (
    Measure("em", "EM, sum"),
    Measure("em_mean", "EM per objective"),
    Measure("f1", "F1, sum"),
    Measure("f1_mean", "F1 per objective"),
    Measure("success", "success"),
    Measure("reward", "reward"),
    Measure("valid", "valid turns"),
    Measure("exact_format", "turns in exact format"),
    Measure("peak_tokens", "peak tokens", 0),
    Measure("peak_tokens_without_prompt", "peak without prompt", 0),
    Measure("dependency", "dependency, 1e6 pairs", 3, 1e6),
    Measure("turns", "turns", 2),
    Measure("searches", "searches", 2),
    Measure("internal_state_tokens", "internal state, tokens", 1),
    Measure("repeated_actions", "repeated actions", 2),
    Measure("recall_rate", "turns that recall"),
    Measure("seconds", "seconds", 2),
)


def outcome(trajectory: Trajectory) -> Numbers:
    """How a trajectory ended.

    Returns:
        One number each: ``reward``, ``success`` (0-1), ``turns`` (that act), ``seconds`` (wall clock, while the other
        episodes of the batch ran), ``stop_<reason>`` (0 or 1). One for each turn that acts: ``valid`` (0 or 1).
    """
    return {
        "reward": [float(trajectory.reward)],
        "success": [trajectory.success],
        "valid": [float(turn.valid) for turn in trajectory.acts],
        "turns": [float(len(trajectory.acts))],
        "seconds": [trajectory.seconds],
        **{f"stop_{reason}": [float(trajectory.stop_reason == reason)] for reason in StopReason},
    }


def answers(trajectory: Trajectory, view: View) -> Numbers:
    """How questions were answered, and how cleanly turns were written.

    Returns:
        One number each: ``em`` and ``f1`` (sums over objectives, the paper's numbers), ``objectives`` (how many there
        are), ``answered`` (1 when it gave an answer), ``searches`` (carried out). One for each turn that acts:
        ``exact_format`` (1 for one internal state and one action and nothing else, or where the memory is staged, for
        one action behind words without a tag).
    """
    end = trajectory.acts[-1].info if trajectory.acts else {}
    staged = view.contexts.memory.staged
    texts = [view.decode(turn.ids) for turn in trajectory.acts]
    return {
        "em": [float(end.get("em", 0.0))],
        "f1": [float(end.get("f1", 0.0))],
        "objectives": [float(len(trajectory.task.objectives))],
        "answered": [float("answer" in end)],
        "searches": [sum(map(_searched, trajectory.acts))],
        "exact_format": [float(exact_format(text, view.tags, staged)) for text in texts],
    }


def cost(trajectory: Trajectory, view: View) -> Numbers:
    """What a trajectory cost in memory.

    Returns:
        One number each: ``peak_tokens`` and ``peak_tokens_without_prompt`` (tokens in the window when a turn ends, one
        that writes a memory included; the paper leaves out the prompt), ``dependency`` (pairs of tokens, likewise). One
        for each turn that acts: ``context_tokens`` (what the policy saw, to act or to write the memory after it,
        whichever was more). One for each internal state that is carried on: ``internal_state_tokens``. One for each of
        these but the first, where it is long enough: ``internal_state_copy_rate`` (0-1, see `copy_rate`). One number
        each: ``repeated_actions`` (after their result had left the context). One for each turn that acts:
        ``recall_rate`` (0 or 1, whether it fetched turns back).
    """
    seen = view.contexts.lengths(trajectory)
    written = [len(turn.action_ids) for turn in trajectory.turns]
    spans = state_spans(trajectory, view.decode, view.tags.internal_state)
    return {
        "peak_tokens": [float(peak_tokens(seen, written))],
        "peak_tokens_without_prompt": [float(peak_tokens(seen, written, len(trajectory.prompt_ids)))],
        "dependency": [float(dependency(seen, written))],
        "context_tokens": [float(number) for number in largest_by_act(trajectory, seen)],
        "internal_state_tokens": [float(length) for length in state_lengths(trajectory, spans)],
        "internal_state_copy_rate": copy_rates(trajectory, spans),
        "repeated_actions": [float(repeated_actions(trajectory, view.contexts))],
        "recall_rate": recalls(trajectory),
    }


def group_deviations(trajectories: Iterable[Trajectory]) -> list[float]:
    """Standard deviation of the rewards of each group, over the episodes that it is compared over.

    Those that failed and rewards that are no finite numbers are left out::

        group 0: 0 1    group 1: 3 nan    group 2: 1 1 1 failed    ->    0.5 0.0 0.0
    """
    groups: dict[int, list[float]] = {}
    for trajectory in trajectories:
        if math.isfinite(trajectory.reward) and trajectory.stop_reason != StopReason.ERROR:
            groups.setdefault(trajectory.group, []).append(float(trajectory.reward))
    return [pstdev(rewards) for rewards in groups.values()]


def measures(trajectory: Trajectory, view: View) -> dict[str, float]:
    """The columns of a table for one trajectory: the mean of each measure over it.

    Args:
        trajectory: What was played.
        view: How it was played.

    Returns:
        By name of `MEASURES`: those of `outcome`, `answers` and `cost`, and ``em_mean``, ``f1_mean`` (per objective,
        0-1). ``em`` and ``f1``, sums and means, only when the task has accepted answers.
    """
    parts = (outcome(trajectory), answers(trajectory, view), cost(trajectory, view))
    means = {name: _mean(numbers) for part in parts for name, numbers in part.items()}
    objectives = trajectory.task.objectives
    if objectives and all(objective.answers for objective in objectives):
        means |= {f"{name}_mean": means[name] / len(objectives) for name in ("em", "f1")}
    else:
        means = {name: mean for name, mean in means.items() if name not in ("em", "f1")}
    return {measure.name: means[measure.name] for measure in MEASURES if measure.name in means}


def by_turn(trajectory: Trajectory, view: View) -> dict[str, list[int]]:
    """Measures of each turn, the arguments those of `measures`: ``context_tokens``, ``internal_state_tokens``."""
    numbers = cost(trajectory, view)
    return {name: [int(number) for number in numbers[name]] for name in ("context_tokens", "internal_state_tokens")}


def _searched(turn: Turn) -> float:
    """1.0 for a search that was carried out: a question's environment says so, a shop's action names it."""
    named = read_action(turn.action or "")
    return float(turn.info.get("search", turn.valid and named is not None and named[0] == "search"))


def _mean(numbers: Sequence[float]) -> float:
    return fmean(numbers) if numbers else 0.0
