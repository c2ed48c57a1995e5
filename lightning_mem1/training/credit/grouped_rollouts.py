"""What an algorithm sees of the trajectories of an rl_step."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mem1.training.credit.advantages import penalised
from lightning_mem1.training.credit.settings import Anchor
from lightning_mem1.types import StopReason, Trajectory

CUT_OFF = (StopReason.MAX_TURNS, StopReason.CONTEXT)  # more might have followed


@dataclass(frozen=True)
class GroupedRollouts:
    """What an algorithm sees of B trajectories; T is the number of action tokens of one.

    Attributes:
        groups: (B,) trajectories of one task share a number.
        turn_rewards: Reward of each turn, by trajectory.
        lengths: Action tokens of each turn, by trajectory.
        anchors: What each turn was taken in, by trajectory: turns with equal ones can be compared, see `of`.
        penalties: (T,) by trajectory: what each token costs (the KL in the reward); None for nothing.
        values: (T,) by trajectory: what the critic expects before each token; None without a critic.
        segments: The segment of each turn, by trajectory (`rewrites.segments`); None for a single one.
        cut_off: By trajectory: whether it ended by turns or context, where more might have followed; None for no.
    """

    groups: Tensor
    turn_rewards: Sequence[Sequence[float]]
    lengths: Sequence[Sequence[int]]
    anchors: Sequence[Sequence[Hashable]]
    penalties: Sequence[Tensor] | None = None
    values: Sequence[Tensor] | None = None
    cut_off: Sequence[bool] | None = None
    segments: Sequence[Sequence[int]] | None = None

    @classmethod
    def of(
        cls,
        trajectories: Sequence[Trajectory],
        turn_rewards: Sequence[Sequence[float]] | None = None,
        penalties: Sequence[Tensor] | None = None,
        values: Sequence[Tensor] | None = None,
        anchor: Anchor = "context",
        segments: Sequence[Sequence[int]] | None = None,
    ) -> GroupedRollouts:
        """Take it from trajectories.

        Args:
            trajectories: B of them.
            turn_rewards: In place of their own.
            penalties, values, segments: See the attributes.
            anchor: What anchors are: the context that a turn was sampled in, or the state of the environment, its
                latest reply, whatever the memory holds.
        """
        return cls(
            torch.tensor([t.group for t in trajectories]),
            turn_rewards or [[float(turn.reward) for turn in t.turns] for t in trajectories],
            [[len(turn.action_ids) for turn in t.turns] for t in trajectories],
            [_contexts(t) if anchor == "context" else _states(t) for t in trajectories],
            penalties,
            values,
            [t.stop_reason in CUT_OFF for t in trajectories],
            segments,
        )

    @property
    def rewards(self) -> Tensor:
        """(B,) reward of each trajectory, what its tokens cost taken off, but in groups of equal rewards.

        See `advantages.penalised`: there the costs are all that could be compared.
        """
        rewards = torch.tensor([float(sum(turns)) for turns in self.turn_rewards])
        if self.penalties is None:
            return rewards
        return penalised(rewards, torch.stack([p.sum().float() for p in self.penalties]), self.groups)

    def token_rewards(self, number: int) -> Tensor:
        """(T,) float64 rewards of a trajectory's action tokens: a turn's reward stands on its last token.

        A turn without action tokens leaves its reward on the token before it (on the first one if there is none)::

            lengths [2, 0, 1]   turn rewards [1, 2, 4]   ->   [0, 1 + 2, 4]
        """
        lengths = self.lengths[number]
        rewards = torch.zeros(sum(lengths), dtype=torch.float64)
        end = 0
        for length, reward in zip(lengths, self.turn_rewards[number], strict=True):
            end += length
            rewards[max(end - 1, 0)] += reward
        return rewards if self.penalties is None else rewards - self.penalties[number].double()

    def turn_rewards_and_costs(self) -> tuple[list[Tensor], list[Tensor]]:
        """Rewards of the turns, float64 by trajectory, and what the tokens of each turn cost."""
        rewards = [torch.tensor([float(each) for each in turns], dtype=torch.float64) for turns in self.turn_rewards]
        if self.penalties is None:
            return rewards, [torch.zeros_like(each) for each in rewards]
        parts = [p.double().split(list(of)) for p, of in zip(self.penalties, self.lengths, strict=True)]
        return rewards, [torch.tensor([float(cost.sum()) for cost in turns], dtype=torch.float64) for turns in parts]

    def segment_lengths(self, number: int) -> list[int]:
        """Action tokens of each segment of a trajectory."""
        if self.segments is None:
            return [sum(self.lengths[number])]
        found = [0] * (max(self.segments[number], default=-1) + 1)
        for segment, length in zip(self.segments[number], self.lengths[number], strict=True):
            found[segment] += length
        return found

    def spread(self, advantages: Tensor) -> list[Tensor]:
        """One advantage per trajectory (B,) -> one per action token, by trajectory."""
        return [a.repeat(sum(turns)) for a, turns in zip(advantages.float(), self.lengths, strict=True)]


def _contexts(trajectory: Trajectory) -> list[Hashable]:
    """The context of each turn, by its hash; where nobody kept one, all that came before the turn."""
    found: list[Hashable] = []
    before: Hashable = tuple(trajectory.prompt_ids)
    for turn in trajectory.turns:
        found.append(before if turn.context_hash is None else turn.context_hash)
        before = hash((before, *turn.ids, *turn.information_ids)), turn.kind
    return found


def _states(trajectory: Trajectory) -> list[Hashable]:
    """The environment's latest reply before each turn, marked where a memory was written of it."""
    found: list[Hashable] = []
    reply = ""
    for turn in trajectory.turns:
        found.append(reply if turn.kind == "act" else f"memory of {reply}")
        reply = turn.information if turn.kind == "act" else reply
    return found
