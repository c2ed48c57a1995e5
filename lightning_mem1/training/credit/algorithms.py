"""The algorithms behind ``model.algorithm``: one small function each, from what was played to credit per action token.

The module does not know which one runs. An algorithm is a function from `GroupedRollouts` to `Credit`, and the settings
of the loss that its paper goes with; a setting that the user gives wins over them. One of your own needs no edit here::

    # my_file.py; model.algorithm: my_file.mean_baseline
    def mean_baseline(played, settings):
        return Credit(played.spread(played.rewards - played.rewards.mean()))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mem1.io.dotted_names import imported
from lightning_mem1.training.choices import Unit
from lightning_mem1.training.credit.advantages import (
    best_of,
    gae,
    group_relative,
    leave_one_out,
    numbered,
    penalised,
    returns_to_go,
    step_relative,
)
from lightning_mem1.training.credit.grouped_rollouts import GroupedRollouts
from lightning_mem1.training.credit.rewrites import gae_by_rows, gae_by_segments
from lightning_mem1.training.credit.settings import CreditSettings, check_algorithm


@dataclass(frozen=True)
class Credit:
    """Advantage of each action token, and with a critic the return it should have expected; (T,) by trajectory."""

    advantages: list[Tensor]
    returns: list[Tensor] | None = None


def grpo(played: GroupedRollouts, settings: CreditSettings) -> Credit:
    """GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1.2): reward against mean and deviation of the group.

    Deviation: in the loss every action token counts the same, as `model.loss_unit` says unless it is set; the paper
    (equation 3) counts every trajectory the same, ``loss_unit: trajectory``.
    """
    return Credit(played.spread(group_relative(played.rewards, played.groups, settings.scale)))


def resum_grpo(played: GroupedRollouts, settings: CreditSettings) -> Credit:
    """ReSum-GRPO (arXiv 2509.13313): the advantage of the episode on each of its segments, each a sample of its own.

    Segments count the same however long they are, so a token's advantage is that of `grpo` times the mean length of the
    segments over the length of its own: in a loss over tokens that is the mean over segments of their means.
    """
    lengths = [played.segment_lengths(number) for number in range(len(played.lengths))]
    filled = [length for each in lengths for length in each if length]
    mean = sum(filled) / max(len(filled), 1)
    shares = [torch.cat([torch.full((n,), mean / max(n, 1)) for n in [*each, 0]]) for each in lengths]
    return Credit([a * share for a, share in zip(grpo(played, settings).advantages, shares, strict=True)])


def dr_grpo(played: GroupedRollouts, settings: CreditSettings) -> Credit:
    """Dr. GRPO (arXiv 2503.20783, section 3.2): GRPO without the deviation and without a length in the loss.

    Every action token counts the same in the loss, whatever `model.loss_unit` says: a trajectory that counted as one
    would bring the length back.

    Deviation: the loss is divided by the action tokens of the update, where the paper divides by a constant; both leave
    a token's weight independent of how long its own trajectory is.
    """
    return Credit(played.spread(group_relative(played.rewards, played.groups, "none")))


def rloo(played: GroupedRollouts, settings: CreditSettings) -> Credit:
    """RLOO (arXiv 2402.14740, section 3.2): reward against the mean of the group's others."""
    return Credit(played.spread(leave_one_out(played.rewards, played.groups)))


def reinforce_pp(played: GroupedRollouts, settings: CreditSettings) -> Credit:
    """REINFORCE++ (arXiv 2501.03262, section 3): rewards to go, whitened over all action tokens of the rl_step.

    With ``kl_in: reward`` every token pays for the divergence that is still to come, as in the paper. No groups.
    """
    count = len(played.lengths)
    return Credit([returns_to_go(played.token_rewards(i), settings.gamma).float() for i in range(count)])


def dapo(played: GroupedRollouts, settings: CreditSettings) -> Credit:
    """DAPO (arXiv 2503.14476): GRPO's advantages; clip-higher, token-level loss, groups without signal dropped.

    The loss is over tokens whatever `model.loss_unit` says, as in the paper (equation 8).

    Deviation: dynamic sampling plays the *same* tasks again (`model.rollout.resample_rounds` times at most) where the
    paper draws new ones; what stays without signal is dropped and does not count in the loss. The soft punishment of
    overlong turns is `model.shaping.overlong_buffer_tokens`.
    """
    return grpo(played, settings)


def gspo(played: GroupedRollouts, settings: CreditSettings) -> Credit:
    """GSPO (arXiv 2507.18071, equations 5-7): GRPO's advantages; one ratio per sequence, clipped as one.

    A sequence is all action tokens of a trajectory, because that is what the reward is for.
    """
    return grpo(played, settings)


def gigpo(played: GroupedRollouts, settings: CreditSettings) -> Credit:
    """GiGPO (arXiv 2505.10978, equations 3-8): trajectories against their group plus steps against equal ones.

    Steps are compared within a group, where they were taken in the same context. Deviation: the paper compares those in
    the same state of the environment (`credit.anchor: state`), whatever the agent remembers there; steps with other
    memories differ in more than the step (HGPO, arXiv 2602.22817).
    """
    episode = group_relative(played.rewards, played.groups, settings.scale)
    rewards, costs = played.turn_rewards_and_costs()
    counts = [len(turns) for turns in played.lengths]
    returns, ahead = (torch.cat([returns_to_go(each, settings.gamma) for each in of]) for of in (rewards, costs))
    anchors = [(int(group), one) for group, its in zip(played.groups, played.anchors, strict=True) for one in its]
    compared = penalised(returns, ahead, numbered(anchors))
    step = step_relative(compared, anchors, settings.scale).float().split(counts)
    return Credit(
        [
            (whole + settings.step_weight * turns).repeat_interleave(torch.tensor(lengths))
            for whole, turns, lengths in zip(episode, step, played.lengths, strict=True)
        ]
    )


def raft(played: GroupedRollouts, settings: CreditSettings) -> Credit:
    """RAFT (arXiv 2304.06767, algorithm 1): imitate the best of each group; with a threshold, rejection sampling.

    Deviation: a group whose rewards are all equal has no best one, and without `credit.threshold` nothing of it is
    imitated. What is played in an rl_step is forgotten after its `model.optim.num_epochs` passes.
    """
    return Credit(played.spread(best_of(played.rewards, played.groups, settings.keep, settings.threshold)))


def ppo(played: GroupedRollouts, settings: CreditSettings) -> Credit:
    """PPO (arXiv 1707.06347) with GAE (arXiv 1506.02438) that crosses memory rewrites; whitened over action tokens.

    An episode that was cut off by its turn budget, or by the length of its context, counts as ended: the budget is part
    of the task, and the agent sees the turns left. With `credit.bootstrap` it counts as unfinished. The state after its
    last action was never shown to the critic, so the value before its last action token (of its last turn, with unit
    "turn") stands for it.
    """
    if played.values is None:
        raise ValueError("ppo needs a critic: expected values of the action tokens, got none")
    found = [_credit_of(played, number, values, settings) for number, values in enumerate(played.values)]
    return Credit([advantages for advantages, _ in found], [returns for _, returns in found])


def _credit_of(played: GroupedRollouts, number: int, values: Tensor, settings: CreditSettings) -> tuple[Tensor, Tensor]:
    """Advantages and returns (T,) of one trajectory; with unit "turn" all tokens of a turn share its numbers."""
    rewards, values = played.token_rewards(number), values.double()
    goes_on = settings.bootstrap and played.cut_off is not None and played.cut_off[number] and len(values) > 0
    if settings.unit == "token":
        beyond = float(values[-1]) if goes_on else 0.0
        advantages = _gae_of(played, number, rewards, values, settings, beyond)
        return advantages.float(), (advantages + values).float()
    lengths = torch.tensor([length for length in played.lengths[number] if length])
    starts = lengths.cumsum(0) - lengths
    turn_rewards = torch.stack([part.sum() for part in rewards.split(lengths.tolist())])
    beyond = float(values[starts[-1]]) if goes_on else 0.0
    advantages = gae(turn_rewards, values[starts], settings.gamma, settings.lam, beyond)
    returns = advantages + values[starts]
    return advantages.float().repeat_interleave(lengths), returns.float().repeat_interleave(lengths)


def _gae_of(
    played: GroupedRollouts, number: int, rewards: Tensor, values: Tensor, settings: CreditSettings, beyond: float
) -> Tensor:
    """Advantages (T,) of one trajectory, by what `settings.rewrites` says of rewrites; see `gae`."""
    rates = settings.gamma, settings.lam, beyond
    if settings.rewrites == "rows":
        return gae_by_rows(rewards, values, played.lengths[number], *rates)
    if settings.rewrites == "segments":
        return gae_by_segments(rewards, values, played.segment_lengths(number), *rates)
    return gae(rewards, values, *rates)


GiveCredit = Callable[[GroupedRollouts, CreditSettings], Credit]


@dataclass(frozen=True)
class Algorithm:
    """A way to give credit, with the loss that belongs to it.

    Attributes:
        credit: What was played -> credit of each action token.
        relative: Compares the trajectories of a group, so one that is left alone by broken ones teaches nothing.
        whiten: Advantages are whitened over all action tokens of the rl_step.
        critic: Needs values.
        sequence_ratio: The probability ratio is that of a whole trajectory.
        drops_no_signal: Groups without a signal do not count in the loss, unless `model.loss.drop_silent` is set.
        likelihood: The loss is that of imitation: no ratio, no clip, and what has no credit does not count.
        clip: Clip range below 1, unless `model.loss.clip` says otherwise.
        clip_high: Clip range above 1, likewise; None for `clip`.
        loss_unit: What counts the same in the loss, whatever `model.loss_unit` says; None to leave it the choice.
        segments: Needs the segments of contexts.
        paper_unit: What counts the same in its paper, where the choice is left.
    """

    credit: GiveCredit
    relative: bool = True
    whiten: bool = False
    critic: bool = False
    sequence_ratio: bool = False
    drops_no_signal: bool = False
    likelihood: bool = False
    clip: float = 0.2
    clip_high: float | None = None
    loss_unit: Unit | None = None
    segments: bool = False
    paper_unit: Unit | None = None

    def give_credit(self, played: GroupedRollouts, settings: CreditSettings) -> Credit:
        """Credit of what was played.

        Raises:
            ValueError: `credit` gives something else than a number for each action token.
        """
        given = self.credit(played, settings)
        if not isinstance(given, Credit):
            raise ValueError(f"{_WRONG_CREDIT}: expected {Credit.__name__}, got {given!r:.80}; {_WHAT_TO_DO}")
        _check_shapes("advantages", given.advantages, played)
        if self.critic or given.returns is not None:
            _check_shapes("returns", given.returns or [], played)
        return given

    def clip_range(self, clip: float | None, clip_high: float | None) -> tuple[float, float]:
        """How far the ratio may go below and above 1, given what the user set (None for nothing).

        An algorithm's own range above 1 stays when `clip` is set, unless that is wider::

            dapo, clip 0.2 and clip_high 0.28     clip 0.1 -> 0.1, 0.28     0.2 -> 0.2, 0.28     0.3 -> 0.3, 0.3
        """
        low = self.clip if clip is None else clip
        if clip_high is not None:
            return low, clip_high
        return low, max(low, self.clip_high or 0.0)

    def drops(self, drop_silent: bool | None) -> bool:
        """Whether groups without a signal stay out of the loss, given what the user set; only where groups compare."""
        return self.relative and (self.drops_no_signal if drop_silent is None else drop_silent)


_WRONG_CREDIT, _WHAT_TO_DO = "the algorithm gives wrong credit", "correct what model.algorithm names"


def _check_shapes(what: str, given: Sequence[Tensor], played: GroupedRollouts) -> None:
    found = [tuple(getattr(each, "shape", ())) for each in given]
    for number, turns in enumerate(played.lengths):
        if found[number : number + 1] != [(sum(turns),)]:
            got = f"shape {found[number]}" if number < len(found) else "nothing"
            raise ValueError(
                f"{_WRONG_CREDIT}: expected {what} of shape ({sum(turns)},) for trajectory {number}, one number per "
                f"action token, got {got}; {_WHAT_TO_DO}"
            )


ALGORITHMS: dict[str, Algorithm] = {
    "grpo": Algorithm(grpo, paper_unit="trajectory"),
    "resum_grpo": Algorithm(resum_grpo, loss_unit="token", segments=True),
    "dr_grpo": Algorithm(dr_grpo, loss_unit="token"),
    "rloo": Algorithm(rloo),
    "reinforce_pp": Algorithm(reinforce_pp, relative=False, whiten=True),
    "dapo": Algorithm(dapo, drops_no_signal=True, clip_high=0.28, loss_unit="token"),
    "gspo": Algorithm(gspo, sequence_ratio=True, clip=3e-4, clip_high=4e-4, loss_unit="trajectory"),
    "gigpo": Algorithm(gigpo),
    "ppo": Algorithm(ppo, relative=False, whiten=True, critic=True),
    "raft": Algorithm(raft, relative=False, likelihood=True),
}


def find_algorithm(name: str) -> Algorithm:
    """The algorithm of a word in `ALGORITHMS`, or of a dotted name: ``my_package.my_file.my_algorithm``.

    A dotted name stands for an `Algorithm`, or for a function that gives credit, which then goes with the settings of
    an `Algorithm` that sets nothing else.

    Raises:
        ValueError: there is no such word, or nothing that can give credit under the dotted name.
    """
    if "." not in name:
        check_algorithm(name, ALGORITHMS)
        return ALGORITHMS[name]
    found = imported(name, "algorithm", "model.algorithm")
    if isinstance(found, Algorithm):
        return found
    if callable(found) and not isinstance(found, type):
        return Algorithm(found)
    raise ValueError(
        f"model.algorithm '{name}' cannot give credit: expected an Algorithm, or a function from GroupedRollouts and "
        f"CreditSettings to Credit (see {__name__}), got {found!r:.80}; set model.algorithm"
    )
