"""Forward passes: which trajectories share one, and what is read from them of each trajectory's action tokens."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mem1.context.contexts import Contexts, derived
from lightning_mem1.context.origins import seen_once
from lightning_mem1.context.settings import MemorySetting
from lightning_mem1.training.credit.filters import num_action_tokens
from lightning_mem1.training.layouts.collate import Batch, collate
from lightning_mem1.training.layouts.replayed import has_routing
from lightning_mem1.training.layouts.spans import StateEnd, check_layout
from lightning_mem1.training.layouts.trie import GrowingTrie, trie
from lightning_mem1.types import StopReason, Task, Trajectory, Turn

IDLE = Trajectory(Task("idle", "", (), 1), [0], [Turn([0], [0.0])], StopReason.DONE)  # teaches nothing


@dataclass(frozen=True)
class Microbatches:
    """How trajectories are cut into forward passes.

    Attributes:
        max_tokens: Most tokens in one; a longer trajectory stands alone.
        layout, memory, state_end: As in `collate`. With `Contexts` for a memory those of an rl_step are derived once,
            for all its passes and for whoever else has them.
        num_idle: Given this rank's number of passes, how many idle ones it has to add to have as many as any other
            rank; None where ranks need not keep step.
        on_pass: Called before each pass with its number, from 1, and how many passes there are.
    """

    max_tokens: int
    layout: str = "tree"
    memory: MemorySetting | Contexts = "mem1"
    state_end: StateEnd | None = None
    num_idle: Callable[[int], int] | None = None
    on_pass: Callable[[int, int], None] | None = None

    def collate(self, trajectories: Sequence[Trajectory]) -> Batch:
        """The batch of one pass, on the CPU."""
        return collate(trajectories, self.layout, self.memory, self.state_end)

    def batches(
        self, trajectories: Sequence[Trajectory], chosen: Sequence[int], device: torch.device | str = "cpu"
    ) -> Iterator[tuple[list[int], Batch]]:
        """The passes over the `chosen` trajectories, in order: whose they are (none if idle), and their batch."""
        held = [trajectories[i] for i in chosen]
        parts = split_by_tokens(held, self.max_tokens, self.layout, self.memory)
        num_idle = self.num_idle(len(parts)) if self.num_idle else 0  # asked before the first pass: ranks meet in both
        for number, part in enumerate(parts, start=1):
            if self.on_pass:
                self.on_pass(number, len(parts))
            yield [chosen[i] for i in part], self.collate([held[i] for i in part]).to(device)
        for _ in range(num_idle):
            yield [], self.collate([IDLE]).to(device)

    @torch.no_grad()
    def scores(
        self,
        trajectories: Sequence[Trajectory],
        scorers: Mapping[str, Callable[[Batch], Tensor]],
        device: torch.device | str = "cpu",
    ) -> dict[str, list[Tensor]]:
        """Score all action tokens, each trajectory once, without a gradient; no pass when there is no scorer.

        Args:
            trajectories: B of them; one without action tokens has nothing to score.
            scorers: Functions from a batch to (N,) numbers, by name.
            device: Where they want the batch.

        Returns:
            (T,) float32 on the CPU by trajectory, by name.
        """
        found = {name: [torch.zeros(0)] * len(trajectories) for name in scorers}
        chosen = [i for i, t in enumerate(trajectories) if scorers and num_action_tokens(t)]
        for here, batch in self.batches(trajectories, chosen, device):
            lengths = [num_action_tokens(trajectories[i]) for i in here]
            for name, scorer in scorers.items():
                scored = scorer(batch).float().cpu()
                for i, column in zip(here, scored.split(lengths) if here else [], strict=True):
                    found[name][i] = column
        return found


def split_by_tokens(
    trajectories: Sequence[Trajectory],
    max_tokens: int,
    layout: str = "tree",
    memory: MemorySetting | Contexts = "mem1",
) -> list[list[int]]:
    """Split trajectories, in order, into runs of at most `max_tokens` trained tokens (a longer one stands alone).

    Neighbours stay together, so that the trajectories of a group share what they begin with in `tree`.
    """
    contexts = derived(memory)
    if layout == "tree":
        return _split_trie(trajectories, max_tokens, contexts)
    groups: list[list[int]] = []
    room = 0
    for index, trajectory in enumerate(trajectories):
        cost = num_tokens(trajectory, layout, contexts)
        if not groups or cost > room:
            groups.append([])
            room = max_tokens
        groups[-1].append(index)
        room -= cost
    return groups


def _split_trie(trajectories: Sequence[Trajectory], max_tokens: int, contexts: Contexts) -> list[list[int]]:
    """The same where what trajectories share counts once."""
    apart = has_routing(trajectories)
    groups: list[list[int]] = []
    growing = GrowingTrie(contexts, apart)
    for index, trajectory in enumerate(trajectories):
        growing.add(trajectory)
        if not groups or growing.num_tokens > max_tokens:
            if groups:
                growing = GrowingTrie(contexts, apart)
                growing.add(trajectory)
            groups.append([])
        groups[-1].append(index)
    return groups


def minibatches(groups: Sequence[int], count: int, seed: str) -> list[list[int]]:
    """Split trajectories evenly into `count` minibatches; groups stay together as far as the split allows.

    Args:
        groups: The group of each trajectory.
        count: Number of minibatches; with more than one, groups are shuffled.
        seed: Of the shuffle.

    Returns:
        Indices of trajectories, by minibatch.
    """
    order = sorted(set(groups))
    if count > 1:
        random.Random(seed).shuffle(order)
    rank = {group: number for number, group in enumerate(order)}
    sorted_indices = sorted(range(len(groups)), key=lambda i: (rank[groups[i]], i))
    size = math.ceil(len(sorted_indices) / count)
    return [sorted_indices[start * size : (start + 1) * size] for start in range(count)]


def num_tokens(trajectory: Trajectory, layout: str = "tree", memory: MemorySetting | Contexts = "mem1") -> int:
    """Tokens that training runs through for one trajectory on its own (padding not counted)."""
    contexts = derived(memory)
    check_layout(layout, contexts.memory)
    return contexts.once(trajectory, f"tokens in layout {layout}", lambda: _num_tokens(trajectory, layout, contexts))


def _num_tokens(trajectory: Trajectory, layout: str, contexts: Contexts) -> int:
    if layout == "tree":
        return trie([trajectory], contexts).num_tokens
    if layout == "rows":
        return sum(contexts.lengths(trajectory)) + num_action_tokens(trajectory)
    return len(seen_once(trajectory))
