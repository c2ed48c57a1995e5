"""Turns by transformers' own `generate`, with the model's own cache: slower than the local engine, for any causal LM.

Turns whose contexts are equally long run together, so that nothing is ever padded: those of a group in their first
turn, others as they come. Sampling and stopping are the local engine's, with the same seeds and the same log-probs. A
model whose cache does not give what its forward pass gives is played without one.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_mem1.engine.sampling import check_sampled, sample
from lightning_mem1.engine.settings import EngineSettings, check_fits, check_positions
from lightning_mem1.engine.stopping import StopRule
from lightning_mem1.policy.inspection import differs
from lightning_mem1.policy.policy import Policy
from lightning_mem1.policy.rotary import forget_lengths
from lightning_mem1.types import Completion, GenerationRequest

TRIED = (72, 4)  # tokens of a context, fewer where fewer fit, and after it, on which a cache is tried


@dataclass
class _Turn:
    request: GenerationRequest
    rng: random.Random
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False

    @property
    def seen(self) -> list[int]:
        """The context and what has been generated."""
        return [*self.request.context_ids, *self.ids]


class TransformersEngine:
    """Generates turns with a `Policy` by transformers' generation code; satisfies `types.Engine`.

    Raises:
        ValueError: contexts longer than the policy has positions, or a model that cannot generate.
    """

    def __init__(self, policy: Policy, settings: EngineSettings | None = None) -> None:
        self.policy, self.settings = policy, settings or EngineSettings()
        check_positions(self.settings.max_context_tokens, policy.architecture.max_positions)
        if not hasattr(policy.causal_lm, "generate"):
            raise ValueError(
                f"'{policy.source}' cannot be played: expected a model with transformers' generate, got "
                f"{type(policy.causal_lm).__name__}; use another model.policy"
            )
        self._stop = StopRule(policy.tokenizer, policy.end_ids)
        self.cached = self._cache_is_right()
        self.reset()

    @property
    def max_context_tokens(self) -> int:
        """Most tokens of a context plus the turn generated in it."""
        return self.settings.max_context_tokens

    @property
    def pending(self) -> int:
        """Turns queued."""
        return len(self._queue)

    def reset(self) -> None:
        """Forget queued turns; no keys are kept between turns."""
        self._queue: deque[GenerationRequest] = deque()

    def submit(self, request: GenerationRequest) -> None:
        """Queue one turn.

        Raises:
            ValueError: an empty context, or one that leaves no room for `max_new_tokens`.
        """
        check_fits(request, self.max_context_tokens)
        self._queue.append(request)

    @torch.no_grad()
    def step(self) -> list[Completion]:
        """Run the oldest turn to its end, and with it those whose contexts are as long."""
        turns = [_Turn(request, random.Random(request.seed)) for request in self._together()]
        running = turns
        while running:
            self._generate(running)
            running = [turn for turn in running if not turn.ended]  # cut where rotary frequencies change
        return [Completion(turn.request.session, turn.ids, turn.logprobs) for turn in turns]

    def _together(self) -> list[GenerationRequest]:
        if not self._queue:
            return []
        length = len(self._queue[0].context_ids)
        chosen = [request for request in self._queue if len(request.context_ids) == length][: self.settings.num_slots]
        taken = set(map(id, chosen))
        self._queue = deque(request for request in self._queue if id(request) not in taken)
        return chosen

    def _generate(self, turns: Sequence[_Turn]) -> None:
        """Add tokens to turns of one length until all have ended, or grow into other rotary frequencies."""
        input_ids = torch.tensor([turn.seen for turn in turns], device=self.policy.device)
        length, room = input_ids.shape[1], max(turn.request.max_new_tokens - len(turn.ids) for turn in turns)
        rule = self.policy.architecture.length
        if rule is not None and rule.two_sets and length <= rule.original:
            room = min(room, rule.original + 1 - length)
        self._run(input_ids, room, _Sampling(turns, self._stop), self.cached, [_Stopping(turns)])

    def _run(
        self, input_ids: Tensor, room: int, choosing: Choosing, cached: bool, stopping: Sequence[Any] = ()
    ) -> None:
        model: Any = self.policy.causal_lm
        forget_lengths(model)
        with self.policy.computing(), _plain_generation(model):
            model.generate(
                input_ids,
                attention_mask=torch.ones_like(input_ids),
                max_new_tokens=room,
                do_sample=False,
                use_cache=cached,
                logits_processor=[choosing],
                stopping_criteria=list(stopping),
            )

    @torch.no_grad()
    def _cache_is_right(self) -> bool:
        """Whether given tokens get the same logits with a cache as without.

        Raises:
            ValueError: they get none.
        """
        context, after = min(TRIED[0], self.max_context_tokens - TRIED[1]), TRIED[1]
        ids = (torch.arange(2 * (context + after)).view(2, -1) * 37 + 11) % len(self.policy.tokenizer)
        ids = ids.to(self.policy.device)
        logits: dict[bool, list[Tensor]] = {}
        for cached in (False, True):
            given = _Given(ids)
            try:
                self._run(ids[:, :context], after, given, cached)
            except Exception as error:  # a model's code may do anything with a cache
                if not cached:
                    reason = " ".join(str(error).split())[:120]
                    raise ValueError(
                        f"'{self.policy.source}' cannot be played: expected transformers' generate to run, got "
                        f"{reason}; use another model.policy"
                    ) from error
                return False
            logits[cached] = given.scores
        return not differs(torch.cat(logits[True]), torch.cat(logits[False]), self.policy.causal_lm.dtype)


Choosing = Callable[[Tensor, Tensor], Tensor]  # ids and scores -> scores, of which the highest is taken


class _Given:
    """Chooses tokens (n, length) that are given, and keeps what scores they got."""

    def __init__(self, ids: Tensor) -> None:
        self._ids, self.scores = ids, list[Tensor]()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.scores.append(scores.clone())
        return torch.full_like(scores, -torch.inf).scatter(1, self._ids[:, input_ids.shape[1], None], 0.0)


class _Sampling:
    """Chooses the tokens: what `generate` takes for logits processing, with one token left to choose from."""

    def __init__(self, turns: Sequence[_Turn], stop: StopRule) -> None:
        self._turns, self._stop = turns, stop

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        requests = [turn.request for turn in self._turns]
        temperatures = torch.tensor([request.temperature for request in requests])
        top_ps = torch.tensor([request.top_p for request in requests], dtype=torch.float64)
        # a turn that has ended draws no more, so that its numbers are those of any batch
        draws = [0.0 if turn.ended else turn.rng.random() for turn in self._turns]
        ids, logprobs = sample(scores, temperatures, top_ps, torch.tensor(draws, dtype=torch.float64))
        check_sampled(known := logprobs.tolist())
        for turn, token, logprob in zip(self._turns, ids.tolist(), known, strict=True):
            if not turn.ended:
                turn.ids.append(token)
                turn.logprobs.append(logprob)
                turn.ended = self._stop.ends(turn.request, turn.ids)
        return torch.full_like(scores, -torch.inf).scatter(1, ids[:, None], 0.0)


class _Stopping:
    def __init__(self, turns: Sequence[_Turn]) -> None:
        self._turns = turns

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        return torch.tensor([turn.ended for turn in self._turns], device=input_ids.device)


@contextmanager
def _plain_generation(model: Any) -> Iterator[None]:
    """Inside, the model's own defaults of generation (penalties, forced tokens, ends of text) are out of the way."""
    before = model.generation_config
    model.generation_config = type(before)()
    try:
        yield
    finally:
        model.generation_config = before
