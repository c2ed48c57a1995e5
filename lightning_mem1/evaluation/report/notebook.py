"""What a notebook shows of trajectories and runs, with the module they were played by."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from lightning_mem1.context.internal_state import state_mask, state_spans
from lightning_mem1.evaluation.report import layout_plot, plots
from lightning_mem1.evaluation.report.episode import parts as context_parts
from lightning_mem1.evaluation.report.plots import curve as plot_curve
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.types import Trajectory

__all__ = ["context_parts", "plot_advantages", "plot_curve", "plot_masks"]


def plot_masks(trajectory: Trajectory, module: Mem1Module) -> Figure:
    """Which token sees which, a panel for each layout, of the first turns that fit.

    Args:
        trajectory: What was played, in the module's memory mode.
        module: It knows the memory mode and where an internal state ends.

    Raises:
        ValueError: not even one turn fits, or there is none.
    """
    return layout_plot.masks(trajectory, module.contexts, module.credit_assigner.state_end)


def plot_advantages(trajectory: Trajectory, advantages: Sequence[float], module: Mem1Module, title: str = "") -> Figure:
    """The advantage of each action token, turns separated by lines, internal states shaded.

    Args:
        trajectory: What was played.
        advantages: (T,) one number per action token, see `known_advantages`.
        module: It knows which tokens are an internal state.
        title: Of the picture.

    Raises:
        ValueError: there is not one advantage for each action token.
    """
    tag = module.rollout_settings.tags.internal_state
    states = state_mask(trajectory, state_spans(trajectory, module.encoder.decode, tag)).tolist()
    return plots.advantages(advantages, [len(turn.action_ids) for turn in trajectory.turns], states, title)
