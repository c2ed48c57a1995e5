"""What credit does where a context is rewritten, other than to cross it as `advantages.gae` does: for comparison.

A row is a call of the policy with its context. A segment is a run of calls whose contexts grow: it ends where something
leaves, so in `mem1` almost every call is one, in `compaction` all calls up to a memory and that memory, in `full` the
whole trajectory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_mem1.context.contexts import Context
from lightning_mem1.training.credit.advantages import gae


def segments(contexts: Sequence[Context]) -> list[int]:
    """The segment of each turn, from 0: a new one where a context does not begin with all of the one before.

    With prompt P, in `mem1`::

        P    P A0 I0    P A1 I1    P A2 I2      0 0 1 2
    """
    found: list[int] = []
    before: list[int] = []
    for context in contexts:
        ids = context.ids
        grows = ids[: len(before)] == before
        found.append((found[-1] if found else 0) + (not grows))
        before = ids
    return found


def gae_by_rows(
    rewards: Tensor,
    values: Tensor,
    lengths: Sequence[int],
    gamma: float = 1.0,
    lam: float = 1.0,
    beyond: float = 0.0,
) -> Tensor:
    """GAE within each row: it counts as an episode of its own, which is paid at its end all that was still to come.

    What training on single calls does (MemAgent, arXiv 2507.02259, with a critic): the value after a row is not asked
    for, and a row long before the end is paid as promptly as the last::

        lengths 1 2    rewards 0 0 8    values 0    gamma 1/2, lam 1     advantages 8 4 8

    Args:
        rewards: (T,) reward of each action token.
        values: (T,) what the critic expects before each.
        lengths: Action tokens of each row; they add up to T.
        gamma: Discount per token.
        lam: Trace decay per token.
        beyond: What is still to come after the last token: 0 when the episode has ended there.

    Returns:
        (T,) advantages in the dtype of `rewards`.
    """
    return _apart(rewards, values, lengths, gamma, lam, 1.0, beyond)


def gae_by_segments(
    rewards: Tensor,
    values: Tensor,
    lengths: Sequence[int],
    gamma: float = 1.0,
    lam: float = 1.0,
    beyond: float = 0.0,
) -> Tensor:
    """GAE within each segment, what is still to come discounted by the tokens until then (CompactionRL, 2607.05378).

    With ``lam = 1`` it is GAE across rewrites. Below, credit decays within a segment alone, and the value after one is
    not asked for. Checked against a description of the paper: values and traces stay within a segment, and a reward
    after it counts at its last token, discounted once for each token of the later segments up to that reward. Not
    checked against its code, which was not at hand. The rest of the method is elsewhere: ``loss_unit: token`` is its
    mean over all tokens of the batch, tokens of memories are trained unless ``loss.state_weight`` is 0, and
    ``critic.warmup_steps`` is the part of 50 steps in which its critic learns alone::

        lengths 1 2    rewards 0 0 8    values 0    gamma 1/2, lam 1     advantages 2 4 8
        the same                                    lam 1/2              advantages 2 2 8

    Args, returns: as in `gae_by_rows`; `lengths` are those of segments.
    """
    return _apart(rewards, values, lengths, gamma, lam, gamma, beyond)


def _apart(
    rewards: Tensor,
    values: Tensor,
    lengths: Sequence[int],
    gamma: float,
    lam: float,
    discount: float,
    beyond: float,
) -> Tensor:
    """GAE of each part, later rewards on its last token; they are discounted by the tokens that lie between."""
    found: list[Tensor] = []
    ahead = discount * beyond  # what is paid after the part, as its last token sees it
    pairs = zip(rewards.split(list(lengths)), values.split(list(lengths)), strict=True)
    for own, expected in reversed(list(pairs)):
        if not len(own):
            continue
        paid = own.double().clone()
        paid[-1] += ahead
        found.append(gae(paid, expected.double(), gamma, lam).to(rewards.dtype))
        weights = discount ** torch.arange(1, len(own) + 1, dtype=torch.float64)
        ahead = float((weights * own.double()).sum()) + discount ** len(own) * ahead
    return torch.cat(found[::-1]) if found else torch.zeros_like(rewards)
