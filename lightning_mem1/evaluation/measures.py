"""One trajectory in numbers: the columns of every table.

Nothing is left out: a trajectory without an answer, or one that failed before its first turn, counts with its zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from lightning_mem1.context.contexts import largest_by_act
from lightning_mem1.context.internal_state import state_lengths, state_spans
from lightning_mem1.context.tags import exact_format, read_action
from lightning_mem1.evaluation.metrics import dependency, peak_tokens
from lightning_mem1.evaluation.view import View
from lightning_mem1.types import Trajectory, Turn


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
    Measure("seconds", "seconds", 2),
)


def measures(trajectory: Trajectory, view: View) -> dict[str, float]:
    """Measure a trajectory.

    Args:
        trajectory: What was played.
        view: How it was played.

    Returns:
        By name: ``em``, ``f1`` (sums over objectives, the paper's numbers), ``em_mean``, ``f1_mean`` (per objective,
        0-1), these four only when the task has accepted answers; ``success`` (0-1), ``reward``; ``valid`` and
        ``exact_format`` (0-1, share of its turns that act); ``peak_tokens`` and ``peak_tokens_without_prompt`` (tokens
        in the window when a turn ends, one that writes a memory included; the paper leaves out the prompt);
        ``dependency`` (pairs of tokens, likewise); ``turns`` (that act), ``searches`` (carried out);
        ``internal_state_tokens`` (mean over its turns, or its memories); ``seconds`` (wall clock, beside the other
        episodes of the batch).
    """
    turns, acts = trajectory.turns, trajectory.acts
    seen, staged = view.contexts.lengths(trajectory), view.contexts.memory.staged
    written = [len(turn.action_ids) for turn in turns]
    texts = [view.decode(turn.action_ids) for turn in acts]
    spans = state_spans(trajectory, view.decode, view.tags.internal_state)
    return {
        **_answers(trajectory),
        "success": trajectory.success,
        "reward": float(trajectory.reward),
        "valid": _mean([float(turn.valid) for turn in acts]),
        "exact_format": _mean([float(exact_format(text, view.tags, staged)) for text in texts]),
        "peak_tokens": float(peak_tokens(seen, written)),
        "peak_tokens_without_prompt": float(peak_tokens(seen, written, len(trajectory.prompt_ids))),
        "dependency": float(dependency(seen, written)),
        "turns": float(len(acts)),
        "searches": sum(map(_searched, acts)),
        "internal_state_tokens": _mean([float(length) for length in state_lengths(trajectory, spans)]),
        "seconds": trajectory.seconds,
    }


def by_turn(trajectory: Trajectory, view: View) -> dict[str, list[int]]:
    """Numbers of each turn by name, the arguments those of `measures`.

    Returns:
        ``context_tokens`` (what the policy saw, to act or to write the memory after it, whichever was more) and
        ``internal_state_tokens`` (what it wrote for itself).
    """
    spans = state_spans(trajectory, view.decode, view.tags.internal_state)
    return {
        "context_tokens": largest_by_act(trajectory, view.contexts.lengths(trajectory)),
        "internal_state_tokens": state_lengths(trajectory, spans),
    }


def _answers(trajectory: Trajectory) -> dict[str, float]:
    objectives = trajectory.task.objectives
    if not objectives or not all(objective.answers for objective in objectives):
        return {}
    end = trajectory.acts[-1].info if trajectory.acts else {}
    em, f1 = float(end.get("em", 0.0)), float(end.get("f1", 0.0))
    return {"em": em, "em_mean": em / len(objectives), "f1": f1, "f1_mean": f1 / len(objectives)}


def _searched(turn: Turn) -> float:
    """1.0 for a search that was carried out: a question's environment says so, a shop's action names it."""
    named = read_action(turn.action or "")
    return float(turn.info.get("search", turn.valid and named is not None and named[0] == "search"))


def _mean(numbers: Sequence[float]) -> float:
    return fmean(numbers) if numbers else 0.0
