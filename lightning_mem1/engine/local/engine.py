"""Continuous batching in this process: every forward pass advances all running turns and starts the waiting ones.

A turn that ends frees its slot at once, and the slot's next turn starts in the very next pass, beside the others that
are still decoding. Keys are reused as far as the new context begins with ids that a slot already holds: its own slot
(the prompt, always, when an episode comes back to it) or another one, whose keys are copied. Episodes of a group begin
alike and often go on alike, so one of them runs what they share and the others wait for it, one pass.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_mem1.engine.local.sampling import sample
from lightning_mem1.engine.local.slots import SlotPool, Span, StepPlan
from lightning_mem1.engine.local.static_decode import StaticDecode
from lightning_mem1.engine.settings import EngineSettings, check_fits
from lightning_mem1.policy.merged import Merged
from lightning_mem1.policy.policy import Policy
from lightning_mem1.policy.recurrent import along, recurrent_layers
from lightning_mem1.policy.sharding import is_sharded
from lightning_mem1.types import Completion, GenerationRequest

WORTH_SHARING = 16  # so many tokens more than its own slot holds make a turn copy from another slot, or wait to do so


@dataclass
class _Running:
    """A turn in a slot: `ids` is all the slot holds or is about to hold, the first `cached` have keys."""

    request: GenerationRequest
    slot: int
    ids: list[int]
    cached: int
    rng: random.Random
    saves: int | None = None  # length at which recurrent layers save a state on the way
    logprobs: list[float] = field(default_factory=list)

    @property
    def generated(self) -> list[int]:
        return self.ids[len(self.request.context_ids) :]


class LocalEngine:
    """Generates turns with a `Policy` in this process; satisfies `types.Engine`."""

    def __init__(self, policy: Policy, settings: EngineSettings | None = None) -> None:
        self.policy = policy
        self.settings = settings or EngineSettings()
        weight = next(policy.causal_lm.parameters())
        self.pool = SlotPool(
            policy.config, self.settings.num_slots, self.settings.max_context_tokens, weight.dtype, weight.device
        )
        self._recurrent = bool(recurrent_layers(policy.causal_lm))
        self._pieces: dict[int, str] = {}
        self._merged = Merged(policy.causal_lm) if self._merges() else None
        self._model: Any = None
        self._static: StaticDecode | None = None
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
        self._running: list[_Running] = []
        self._passes_since_start = 0
        self._held: dict[int, tuple[int, list[int]]] = {}  # free slot -> (its last session, ids with keys)
        self._free = list(range(self.settings.num_slots))
        self.pool.states.forget()
        if self._merged:
            self._merged.update()
        model: Any = self._merged.model if self._merged else self.policy.causal_lm
        if self._backend and model is not self._model:
            self._static = StaticDecode(self.pool, model, self._backend)
        self._model = model

    @property
    def _backend(self) -> str:
        if self.settings.compile is None:
            return "cudagraphs" if self.pool.keys.is_cuda and not is_sharded(self.policy) else ""
        return self.settings.compile

    def _merges(self) -> bool:
        if self.settings.merge_lora is False or is_sharded(self.policy):
            return False
        return (
            bool(self.settings.merge_lora) or self.pool.keys.dtype == torch.float32
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
        self._running.sort(key=lambda run: run.slot)
        with self.policy.computing():
            logits = self._logits(starting)
        self._running += starting
        for run in self._running:
            self.num_run += len(run.ids) - run.cached
            run.cached = len(run.ids)
        ids, logprobs = torch.stack([each.double() for each in sample(logits, *self._sampling())]).tolist()
        finished = [
            run
            for run, token, logprob in zip(self._running, map(int, ids), logprobs, strict=True)
            if self._append(run, token, logprob)
        ]
        return [self._finish(run) for run in finished]

    def _logits(self, starting: list[_Running]) -> Tensor:
        """Logits (turns, vocabulary) after the last token of the running turns, then of the starting ones."""
        decode = [Span(run.slot, run.cached, 1) for run in self._running]
        prefill = [Span(run.slot, run.cached, len(run.ids) - run.cached, run.saves) for run in starting]
        if self._static is None or not decode:
            return self._packed([*self._running, *starting], StepPlan(self.pool, decode, prefill))
        logits = self._static.logits(decode, [run.ids[-1] for run in self._running])
        if not starting:
            return logits
        return torch.cat([logits, self._packed(starting, StepPlan(self.pool, [], prefill))])

    def _packed(self, runs: list[_Running], plan: StepPlan) -> Tensor:
        """The same of turns that run in one row."""
        device = self.pool.keys.device
        tokens = [run.ids[run.cached :] for run in runs]
        ends = torch.tensor([len(t) for t in tokens], device=device).cumsum(0) - 1
        input_ids = torch.tensor([[token for new in tokens for token in new]], device=device)
        with along(slots=plan):
            hidden = self._model.model(
                input_ids=input_ids, position_ids=plan.positions[None], use_cache=False, attention_mask=None, slots=plan
            ).last_hidden_state
        return self._model.lm_head(hidden[0, ends])

    def _sampling(self) -> tuple[Tensor, Tensor, Tensor]:
        requests = [run.request for run in self._running]
        temperatures = torch.tensor([r.temperature for r in requests])
        top_ps = torch.tensor([r.top_p for r in requests], dtype=torch.float64)
        uniforms = torch.tensor([run.rng.random() for run in self._running], dtype=torch.float64)
        return temperatures, top_ps, uniforms

    def _append(self, run: _Running, token: int, logprob: float) -> bool:
        """Add a sampled token; True when it ends the turn."""
        run.ids.append(token)
        run.logprobs.append(logprob)
        return len(run.logprobs) >= run.request.max_new_tokens or self._stops(run, token)

    def _stops(self, run: _Running, token: int) -> bool:
        if token == self.policy.tokenizer.eos_token_id:
            return True
        stop = run.request.stop
        if not any(s[-1] in self._piece(token) for s in stop):
            return False
        tail = self._decode(run.generated[-max(map(len, stop)) :])  # a token is at least one character or byte
        return any(s in tail for s in stop)

    def _piece(self, token: int) -> str:
        if token not in self._pieces:
            self._pieces[token] = self._decode([token])
        return self._pieces[token]

    def _decode(self, ids: list[int]) -> Any:
        return self.policy.tokenizer.decode(ids, skip_special_tokens=False)

    def _finish(self, run: _Running) -> Completion:
        self._running.remove(run)
        self._free.append(run.slot)
        self._held[run.slot] = (run.request.session, run.ids[: run.cached])
        return Completion(run.request.session, run.generated, run.logprobs)

    def _admit(self) -> list[_Running]:
        self._passes_since_start += 1
        if self._running and self._passes_since_start < self.settings.prefill_interval:
            return []
        self._passes_since_start = 0
        starting: list[_Running] = []
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

    def _start(self, request: GenerationRequest, starting: list[_Running]) -> _Running | None:
        """Take a slot with all keys there are for the context; None when a turn that starts now will have more."""
        ids = list(request.context_ids)
        own = [slot for slot in self._free if self._held.get(slot, (None,))[0] == request.session]
        slot = own[0] if own else min(self._free)  # low slots first: the pool is attended as a view from slot 0
        held = self._held.get(slot, (None, []))[1]
        cached = self._reach(slot, held, ids)
        donor, shared, donated = self._donor(ids)
        known = max(cached, shared if shared >= cached + WORTH_SHARING else 0)
        if any(self._reach(run.slot, run.ids, ids, running=True) >= known + WORTH_SHARING for run in starting):
            return None
        if known > cached:
            self.pool.copy(donor, slot, known)
        saves = None
        if self._recurrent:
            source, whole = (donor, donated) if known > cached else (slot, held)
            self.pool.states.begin(slot, source, known, len(whole))
            stable = known if source != slot else _common_prefix(held, ids)
            saves = self.pool.states.save_at(slot, ids, known, stable)
        self._free.remove(slot)
        self._held.pop(slot, None)
        cached = min(known, len(ids) - 1)  # the last token must run: it predicts the first new one
        return _Running(request, slot, ids, cached, random.Random(request.seed), saves)

    def _reach(self, slot: int, held: list[int], ids: list[int], running: bool = False) -> int:
        """How many tokens of a context can be taken from a slot that holds `held`."""
        if self._recurrent:
            return self.pool.states.reach(slot, held, ids, running)
        return _common_prefix(held, ids)

    def _donor(self, ids: list[int]) -> tuple[int, int, list[int]]:
        """The slot that has the longest beginning of `ids`, how many tokens of it, and all the ids it holds."""
        found = [(slot, self._reach(slot, held, ids), held) for slot, (_, held) in self._held.items()]
        found += [
            (run.slot, min(run.cached, self._reach(run.slot, run.ids, ids, running=True)), run.ids)
            for run in self._running
        ]
        return max(found, key=lambda each: each[1], default=(0, 0, []))


def _common_prefix(a: list[int], b: list[int]) -> int:
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))
