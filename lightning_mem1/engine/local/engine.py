"""Continuous batching in this process: every forward pass advances all running turns and starts the waiting ones.

A turn that ends frees its slot at once, and the slot's next turn starts in the very next pass, with the others that are
still decoding. Keys are reused as far as the new context begins with ids that a slot already holds: its own slot
(the prompt, always, when an episode comes back to it) or another one, whose keys are copied. Episodes of a group begin
alike and often continue alike, so one of them runs what they share and the others wait for it, one pass.

Where rotary frequencies depend on the length of the context (`policy.rotary`), keys are reused among contexts whose
frequencies are the same, and made again for a turn that grows into others.
"""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_mem1.engine.local.expert_pool import ExpertPool
from lightning_mem1.engine.local.sampled_decode import SampledDecode
from lightning_mem1.engine.local.slots import SlotPool, Span, StepPlan
from lightning_mem1.engine.local.static_decode import StaticDecode
from lightning_mem1.engine.local.threads import largest_weight, threads_for
from lightning_mem1.engine.local.turns import Running, on_cpu, prefill_of, sampling_of
from lightning_mem1.engine.sampling import check_sampled, sample
from lightning_mem1.engine.settings import EngineSettings, check_fits, check_positions
from lightning_mem1.engine.stopping import StopRule
from lightning_mem1.policy.attention import Pass, carrying
from lightning_mem1.policy.backbone import Head, backbone, decoder_layers
from lightning_mem1.policy.merged import Merged
from lightning_mem1.policy.policy import Policy
from lightning_mem1.policy.recurrent import recurrent_layers
from lightning_mem1.policy.sharding import is_sharded
from lightning_mem1.types import Completion, GenerationRequest

WORTH_SHARING = 16  # so many tokens more than its own slot holds make a turn copy from another slot, or wait to do so


@dataclass(frozen=True)
class _Held:
    """What a slot has keys for, by whose turn it was and the regime of their rotary frequencies."""

    session: int | None
    ids: list[int]
    regime: int


NOTHING = _Held(None, [], 0)


class LocalEngine:
    """Generates turns with a `Policy` in this process; satisfies `types.Engine`.

    Raises:
        ValueError: a policy whose layers it does not know, or contexts longer than the policy has positions; routing
            that is to be replayed, of a policy without routers that can be.
    """

    def __init__(self, policy: Policy, settings: EngineSettings | None = None) -> None:
        self.policy = policy
        self.settings = settings or EngineSettings()
        known = policy.architecture
        if known.slots:
            raise ValueError(
                f"the local engine cannot play '{policy.source}': expected layers that attend over its "
                f"slots, got others, {known.slots}; set model.engine.kind transformers"
            )
        check_positions(self.settings.max_context_tokens, known.max_positions)
        self._length = known.length
        weight = next(policy.causal_lm.parameters())
        self.pool = SlotPool(
            known.layers, self.settings.num_slots, self.settings.max_context_tokens, weight.dtype, weight.device
        )
        self._experts = self._expert_pool() if self.settings.replay_routing else None
        self._stop = StopRule(policy.tokenizer, policy.end_ids)
        self._recurrent = bool(recurrent_layers(policy.causal_lm))
        self._largest = largest_weight(decoder_layers(policy.causal_lm).values())
        self._merged = Merged(policy.causal_lm) if self._merges() else None
        self._model: Any = None
        self._static: StaticDecode | None = None
        self._sampled: SampledDecode | None = None
        self.reset()

    @property
    def max_context_tokens(self) -> int:
        """Most tokens of a context plus the turn generated in it."""
        return self.settings.max_context_tokens

    @property
    def pending(self) -> int:
        """Turns queued or running."""
        return len(self._queue) + len(self._running)

    def reset(self) -> None:
        """Forget queued turns and cached keys (call it whenever the weights may have changed)."""
        self.num_run = 0  # tokens that went through the model since; those whose keys were there did not
        self._queue: deque[GenerationRequest] = deque()
        self._running: list[Running] = []
        self._passes_since_start = 0
        self._held: dict[int, _Held] = {}  # by free slot
        self._free = list(range(self.settings.num_slots))
        self.pool.states.forget()
        if self._merged:
            self._merged.update()
        model: Any = self._merged.model if self._merged else self.policy.causal_lm
        if model is not self._model:
            self._static = StaticDecode(self.pool, model, self._backend) if self._backend else None
            self._sampled = None
            if self._static and self.settings.capture_sampling:
                self._sampled = SampledDecode(self._static, ahead=not self._recurrent and self._length is None)
            self._head = Head(model)
        self._model = model
        if self._sampled:
            self._sampled.forget()

    def _expert_pool(self) -> ExpertPool:
        if self._length is not None:
            raise ValueError(
                f"cannot record the routing of '{self.policy.source}': expected rotary frequencies of every length "
                "alike, got some that change with it, so that tokens run more than once; set "
                "model.engine.replay_routing false"
            )
        return ExpertPool(self.policy.routers, self.pool.num_slots, self.pool.max_tokens, self.pool.device)

    @property
    def _backend(self) -> str:
        if self._experts:
            return ""  # a captured step leaves no choices behind
        if self._length and (not self._length.two_sets or self.max_context_tokens > self._length.original):
            return ""  # frequencies change from step to step
        if self.settings.compile is None:
            return "cudagraphs" if self.pool.device.type == "cuda" and not is_sharded(self.policy) else ""
        return self.settings.compile

    def _merges(self) -> bool:
        if self.settings.merge_lora is False or is_sharded(self.policy):
            return False
        return (
            bool(self.settings.merge_lora) or self.pool.dtype == torch.float32
        )  # in fewer bits, what an adapter adds may be lost in rounding

    def submit(self, request: GenerationRequest) -> None:
        """Queue one turn.

        Raises:
            ValueError: an empty context, or one that leaves no room for `max_new_tokens`.
        """
        check_fits(request, self.max_context_tokens)
        self._queue.append(request)

    @torch.inference_mode()
    def step(self) -> list[Completion]:
        """Run one pass over all running and starting turns; return the turns that ended in it."""
        starting = self._admit()
        if not self._running and not starting:
            return []
        starting = self._outgrown() + starting
        self._running.sort(key=lambda run: run.slot)
        ids, logprobs = self._draw_in_step(starting) if self._sampled else self._draw(self._running, starting)
        self._running += starting
        for run in self._running:
            self.num_run += len(run.ids) - run.cached
            run.cached = len(run.ids)
        check_sampled(logprobs)
        finished = [
            run
            for run, token, logprob in zip(self._running, map(int, ids), logprobs, strict=True)
            if self._append(run, token, logprob)
        ]
        return [self._finish(run) for run in finished]

    def _threads(self, running: list[Running], starting: list[Running]) -> AbstractContextManager[None]:
        tokens = len(running) + sum(len(run.ids) - run.cached for run in starting)
        return threads_for(tokens, self._largest, self.pool.device)

    def _draw(self, running: list[Running], starting: list[Running]) -> tuple[list[float], list[float]]:
        """Ids and log-probs of one token of running turns, then of starting ones."""
        with self.policy.computing(), self._threads(running, starting):
            logits = self._logits(running, starting)
        return on_cpu(*sample(logits, *sampling_of([*running, *starting])))

    def _draw_in_step(self, starting: list[Running]) -> tuple[list[float], list[float]]:
        """The same, where decode steps draw; a step starts ahead only of one in which all tokens stay on the device."""
        assert self._sampled is not None
        if not self._running:
            self._sampled.forget()
            return self._draw([], starting)
        with self.policy.computing(), self._threads(self._running, starting):
            drawn = self._sampled.start(self._running)
            if not starting:
                self._sampled.start_ahead(self._running)
        first = self._draw([], starting) if starting else ([], [])
        ids, logprobs = drawn.read()
        slots = [run.slot for run in self._running]
        return [ids[slot] for slot in slots] + first[0], [logprobs[slot] for slot in slots] + first[1]

    def _outgrown(self) -> list[Running]:
        """Take the running turns whose keys have to be made again out of those that decode."""
        grown = [run for run in self._running if self._regime(len(run.ids), run) != self._regime(run.cached, run)]
        for run in grown:
            self._running.remove(run)
            run.cached = 0
        return grown

    def _regime(self, length: int, run: Running | None = None) -> int:
        """The regime of rotary frequencies; tokens of a turn keep theirs unless there are two sets."""
        if self._length is None or (run is not None and not self._length.two_sets):
            return 0
        return self._length.regime(length)

    def _logits(self, running: list[Running], starting: list[Running]) -> Tensor:
        """Logits (turns, vocabulary) after the last token of running turns, then of starting ones."""
        decode = [Span(run.slot, run.cached, 1) for run in running]
        prefill = prefill_of(starting)
        if self._static is None or not decode:
            return self._packed([*running, *starting], StepPlan(self.pool, decode, prefill))
        logits = self._static.logits(decode, [run.ids[-1] for run in running])
        if not starting:
            return logits
        return torch.cat([logits, self._packed(starting, StepPlan(self.pool, [], prefill))])

    def _packed(self, runs: list[Running], plan: StepPlan) -> Tensor:
        """The same of turns that run in one row."""
        device = self.pool.device
        tokens = [run.ids[run.cached :] for run in runs]
        ends = torch.tensor([len(t) for t in tokens], device=device).cumsum(0) - 1
        input_ids = torch.tensor([[token for new in tokens for token in new]], device=device)
        lengths = None
        if self._length is not None:  # a token has the frequencies of the context as it is when its turn runs it
            lengths = torch.tensor([[len(run.ids) for run in runs for _ in run.ids[run.cached :]]], device=device)
        handed = {"slots": plan} if self.policy.architecture.keywords else {}
        chosen: dict[int, Tensor] | None = {} if self._experts else None
        with carrying(Pass(slots=plan, lengths=lengths, chosen=chosen)):
            hidden = backbone(self._model)(
                input_ids=input_ids, position_ids=plan.positions[None], use_cache=False, attention_mask=None, **handed
            ).last_hidden_state
        if self._experts and chosen:
            self._experts.store(plan.slots, plan.positions, chosen)
        return self._head(hidden[0, ends])

    def _append(self, run: Running, token: int, logprob: float) -> bool:
        """Add a sampled token; True when it ends the turn."""
        run.ids.append(token)
        run.logprobs.append(logprob)
        return self._stop.ends(run.request, run.generated)

    def _finish(self, run: Running) -> Completion:
        self._running.remove(run)
        self._free.append(run.slot)
        count, regime = self._reusable(run)
        self._held[run.slot] = _Held(run.request.session, run.ids[:count], regime)
        # the last token is sampled, and in no pass yet
        experts = self._experts.taken(run.slot, len(run.ids) - 1) if self._experts else None
        return Completion(run.request.session, run.generated, run.logprobs, experts=experts)

    def _reusable(self, run: Running) -> tuple[int, int]:
        """How many of a turn's keys a later one may use, those with the frequencies of its own length; their regime."""
        regime = self._regime(run.cached)
        if self._length is None or self._length.two_sets or not regime:
            return run.cached, regime
        # each key beyond the original length has frequencies of its own
        return self._length.original if len(run.request.context_ids) <= self._length.original else 0, 0

    def _admit(self) -> list[Running]:
        self._passes_since_start += 1
        if self._running and self._passes_since_start < self.settings.prefill_interval:
            return []
        self._passes_since_start = 0
        starting: list[Running] = []
        waiting: list[GenerationRequest] = []
        room = self.settings.max_prefill_tokens
        while self._queue and self._free and (room > 0 or not starting):
            request = self._queue.popleft()
            run = self._start(request, starting)
            if run is None:
                waiting.append(request)
                continue
            room -= len(run.ids) - run.cached
            starting.append(run)
        self._queue.extendleft(reversed(waiting))
        return starting

    def _start(self, request: GenerationRequest, starting: list[Running]) -> Running | None:
        """Take a slot with all keys there are for the context; None when a turn that starts now will have more."""
        ids = list(request.context_ids)
        own = [slot for slot in self._free if self._held.get(slot, NOTHING).session == request.session]
        slot = own[0] if own else min(self._free)  # low slots first: the pool is attended as a view from slot 0
        held = self._held.get(slot, NOTHING)
        cached = self._reach(slot, held.ids, held.regime, ids)
        donor, shared, donated = self._donor(ids)
        known = max(cached, shared if shared >= cached + WORTH_SHARING else 0)
        coming = [self._reach(run.slot, run.ids, self._regime(len(run.ids)), ids, running=True) for run in starting]
        if max(coming, default=0) >= known + WORTH_SHARING:
            return None
        if known > cached:
            self.pool.copy(donor, slot, known)
            if self._experts:
                self._experts.copy(donor, slot, known)
        saves = None
        if self._recurrent:
            source, whole = (donor, donated) if known > cached else (slot, held.ids)
            self.pool.states.begin(slot, source, known, len(whole))
            stable = known if source != slot else _common_prefix(held.ids, ids)
            saves = self.pool.states.save_at(slot, ids, known, stable)
        self._free.remove(slot)
        self._held.pop(slot, None)
        cached = min(known, len(ids) - 1)  # the last token must run: it predicts the first new one
        return Running(request, slot, ids, cached, saves)

    def _donor(self, ids: list[int]) -> tuple[int, int, list[int]]:
        """The slot that has the longest beginning of `ids`, how many tokens of it, and all the ids it holds."""
        found = [(slot, self._reach(slot, held.ids, held.regime, ids), held.ids) for slot, held in self._held.items()]
        for run in self._running:
            count, regime = self._reusable(run)
            found.append((run.slot, min(count, self._reach(run.slot, run.ids, regime, ids, running=True)), run.ids))
        return max(found, key=lambda each: each[1], default=(0, 0, []))

    def _reach(self, slot: int, held: list[int], regime: int, ids: list[int], running: bool = False) -> int:
        """How many tokens of a context can be taken from a slot that holds `held`."""
        if self._recurrent:
            return self.pool.states.reach(slot, held, ids, running) if regime == self._regime(len(ids)) else 0
        return self._shared(held, regime, ids)

    def _shared(self, held: list[int], regime: int, ids: list[int]) -> int:
        """How many of the keys of `held` a context can use: its beginning, if the frequencies are the same."""
        return _common_prefix(held, ids) if regime == self._regime(len(ids)) else 0


def _common_prefix(a: list[int], b: list[int]) -> int:
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))
