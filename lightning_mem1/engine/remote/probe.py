"""Whether a server acts with the adapter that it says it has loaded: a few of its log-probabilities against our own.

A server may answer 200 and still serve the base, or an earlier adapter. The fixed contexts here are scored with the
adapter, without it, and were with earlier ones: a server's numbers must be none of those, as far as they can be
distinguished from the adapter's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_mem1.engine.protocol.client import Reply
from lightning_mem1.types import GenerationRequest

if TYPE_CHECKING:
    from lightning_mem1.policy.policy import Policy

TEXT = "Find red shoes. <summary>I look for red shoes under 40 dollars.</summary><answer>search[red shoes]</answer>"
MAX_TOKENS = 32
PLACES = (3, 7, 15, 31)  # last ids of the contexts
MIN_MOVED = 0.2  # nats over all contexts; kernels of 16 bits differ by a tenth of it
NEAR = 0.25  # of what the adapter moves: a server's numbers that differ less from the base's are the base's
BASE, EARLIER, EARLIER_WEIGHTS = "the base", "an earlier adapter", "earlier weights"


@dataclass(frozen=True)
class Probe:
    """Log-probabilities of every id after some contexts.

    Attributes:
        contexts: The contexts.
        adapted: (contexts, vocabulary) with the adapter, in nats.
        base: (contexts, vocabulary) without it.
        earlier: The same with the first adapter and with the one before this one; of whole weights, with the first ones
            and with those before.
        named: What the earlier ones are called.
    """

    contexts: list[list[int]]
    adapted: Tensor
    base: Tensor
    earlier: tuple[Tensor, ...] = ()
    named: str = EARLIER

    def serves_other(self, ask: Callable[[GenerationRequest], Reply], max_tokens: int | None = None) -> str:
        """What shows that a server acts with the base, or with an earlier adapter; empty where nothing does.

        Args:
            ask: Gets a turn of the adapter from the server.
            max_tokens: Longest context that it takes, with the turn; None for any.
        """
        ids, given = [], []
        fitting = [each for each in self.contexts if max_tokens is None or len(each) < max_tokens]
        for number, context in enumerate(fitting):
            reply = ask(GenerationRequest(-1, context, 1, (), 1.0, seed=number))
            if not reply.ids:
                return ""  # a server of texts, whose numbers nobody learns from
            ids.append(reply.ids[0])
            given.append(reply.logprobs[0])
        return self.verdict(ids, given)

    def verdict(self, ids: Sequence[int], given: Sequence[float]) -> str:
        """The same of what it gave: one id after each context, and its log-probability."""
        rows, columns = torch.arange(len(ids)), torch.tensor(ids)
        adapted, numbers = self.adapted[rows, columns], torch.tensor(given)
        for name, scores in ((BASE, self.base), *((self.named, each) for each in self.earlier)):
            other = scores[rows, columns]
            moved = (adapted - other).abs().sum()
            # else too small a change to see, or other weights than those
            if moved >= MIN_MOVED and (numbers - other).abs().sum() <= NEAR * moved:
                return (
                    f"{name}: expected log-probabilities like {_shown(adapted)}, got {_shown(numbers)}; those of "
                    f"{name} are {_shown(other)}"
                )
        return ""


def _shown(numbers: Tensor) -> str:
    return ", ".join(f"{number:.2f}" for number in numbers.tolist())


@torch.no_grad()
def probe_of(policy: Policy, before: Probe | None = None) -> Probe:
    """Score the contexts with a policy's adapter and without it.

    Args:
        policy: Whose adapter.
        before: The probe of the adapter before this one, None for none.
    """
    ids = list(policy.tokenizer.encode(TEXT, add_special_tokens=False))[:MAX_TOKENS]
    places = [place for place in PLACES if place < len(ids)] or [len(ids) - 1]
    training = policy.training
    policy.eval()
    try:
        adapted = _scores(policy, ids, places)
        with policy.reference():
            base = _scores(policy, ids, places)
    finally:
        policy.train(training)
    earlier = () if before is None else (*before.earlier[:1], before.adapted)
    return Probe([ids[: place + 1] for place in places], adapted, base, earlier)


@torch.no_grad()
def probe_of_all(policy: Policy, before: Probe | None = None) -> Probe:
    """Score the contexts with a policy that trains all its weights.

    Args:
        policy: In full training, none of its weights shared out among ranks.
        before: The probe of the weights before these, None for none.
    """
    ids = list(policy.tokenizer.encode(TEXT, add_special_tokens=False))[:MAX_TOKENS]
    places = [place for place in PLACES if place < len(ids)] or [len(ids) - 1]
    training = policy.training
    policy.eval()
    try:
        scores = _scores(policy, ids, places)
    finally:
        policy.train(training)
    base, earlier = (scores, ()) if before is None else (before.base, (before.adapted,))
    return Probe([ids[: place + 1] for place in places], scores, base, earlier, EARLIER_WEIGHTS)


def _scores(policy: Policy, ids: list[int], places: list[int]) -> Tensor:
    device = policy.device
    positions = torch.arange(len(ids), device=device)[None]
    hidden = policy.hidden(torch.tensor([ids], device=device), positions, attention_mask=None)
    return policy.head(hidden[0, places]).float().log_softmax(-1).cpu()
