"""Decode steps whose shapes never change, so that torch.compile and CUDA graphs have nothing to make again.

Every slot takes part in every step, whether a turn runs in it or not. How far back a step looks is rounded up to one of
a few lengths, each compiled or captured once; buffers stay where they are, and the pool with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_mem1.engine.local.slots import SlotPool, Span, attend_once, store
from lightning_mem1.policy.attention import Pass, carrying
from lightning_mem1.policy.backbone import Head, backbone
from lightning_mem1.policy.recurrent import Rows, leave_uncompiled
from lightning_mem1.policy.scores import EVERYTHING, Scores

SHORTEST = 256  # tokens; looking back less far saves little
MOST = 6  # lengths: torch.compile gives up on a function that it had to compile more often than eight times
Forward = Callable[[Any, Head, "Step"], Tensor]  # model, its head and step -> logits (slots, vocabulary)


class StaticDecode:
    """All decode steps of an engine.

    Args:
        pool: The keys and values.
        model: A causal LM with this package's attention; its weights may change, its modules may not.
        backend: Of torch.compile, such as inductor or eager. On a GPU steps are captured as well, compiled or, with
            "cudagraphs", as they are: torch's backend of that name leaves out graphs that write to their inputs, such
            as the pool.
    """

    def __init__(self, pool: SlotPool, model: Any, backend: str) -> None:
        self.pool, self.model, self.head = pool, model, Head(model)
        # ids and positions of the new tokens, by slot, filled in one transfer
        self.inputs = torch.zeros(2, pool.num_slots, dtype=torch.long, device=pool.device)
        self._steps = {reach: Step(pool, reach, self.inputs) for reach in lengths(pool.max_tokens)}
        self.captures = pool.device.type == "cuda"
        self.forward: Forward = _forward
        if backend != "cudagraphs" or not self.captures:
            leave_uncompiled(model)
            self.forward = torch.compile(_forward, backend=backend, dynamic=False)
        self._run = Captured(self.forward, pool) if self.captures else self.forward

    def logits(self, decode: Sequence[Span], tokens: Sequence[int]) -> Tensor:
        """Logits (turns, vocabulary) after one new token of each running turn."""
        step = self.step(max(span.start for span in decode))
        self._set(decode, tokens)
        with carrying(Pass(slots=step)):
            logits = self._run(self.model, self.head, step)
        slots = [span.slot for span in decode]
        if slots == list(range(len(slots))):
            return logits[: len(slots)]
        # a list would be sent to a GPU as an index that it waits for
        return logits.index_select(0, torch.tensor(slots).to(logits.device, non_blocking=True))

    def step(self, last: int) -> Step:
        """The shortest step that looks back from position `last`."""
        return self._steps[min(length for length in self._steps if length > last)]

    def _set(self, decode: Sequence[Span], tokens: Sequence[int]) -> None:
        """Fill the inputs; an idle slot writes to its last place, which no turn reaches, and reads its first."""
        ids = [0] * self.pool.num_slots
        positions = [self.pool.max_tokens - 1] * self.pool.num_slots
        for span, token in zip(decode, tokens, strict=True):
            ids[span.slot], positions[span.slot] = token, span.start
        self.inputs.copy_(torch.tensor([ids, positions]), non_blocking=True)  # a GPU that is busy is not waited for


class Captured:
    """A step of one model as CUDA graphs, one for each reach: kernels start without a line of Python between.

    A step may be tried at any time: its keys are replaced before they are read, and what it moves on is put back, that
    is its inputs and the states of recurrent layers. What comes back stays until its next call.

    Args:
        run: The step: model, its head and buffers -> what comes back.
        pool: The keys and values.
        memory: Of torch's graph pools, for graphs that share theirs; None for one of each graph's own.
    """

    def __init__(self, run: Forward, pool: SlotPool, memory: Any = None) -> None:
        self._run, self._pool, self._memory = run, pool, memory
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def __call__(self, model: Any, head: Head, step: Step) -> Tensor:
        if step.reach not in self._graphs:
            before = step.inputs.clone()
            with self._pool.states.unchanged():
                self._graphs[step.reach] = _captured(lambda: self._run(model, head, step), self._memory)
            step.inputs.copy_(before)
        graph, result = self._graphs[step.reach]
        graph.replay()
        return result


def _captured(run: Callable[[], Tensor], memory: Any) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """A call as a graph, and where its result will be."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):  # what is compiled, or made by kernels, at a first call must not be made within the graph
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # thread_local: one step off, another thread allocates while this one captures
    with torch.cuda.graph(graph, pool=memory, capture_error_mode="thread_local"):
        result = run()
    return graph, result


class Step:
    """The buffers of steps that look back equally far; what the attention function gets as ``slots=``."""

    def __init__(self, pool: SlotPool, reach: int, inputs: Tensor) -> None:
        num_slots, device = pool.num_slots, pool.device
        self.pool, self.reach, self.inputs = pool, reach, inputs
        self.places = torch.arange(reach, device=device)
        self.slots = torch.arange(num_slots, device=device)
        self.input_ids, self.positions = inputs[:1], inputs[1]
        self.masks = {rule: torch.zeros(num_slots, 1, 1, reach, dtype=pool.dtype, device=device) for rule in pool.rules}

    def look_back(self) -> None:
        """Set the masks from the positions; a part of the step, so that it is captured with it."""
        last = torch.where(self.positions < self.reach, self.positions, 0)[:, None]
        for rule, mask in self.masks.items():
            hidden = self.places > last
            if rule != EVERYTHING:
                hidden |= ~rule.sees(last, self.places)
            mask.zero_().masked_fill_(hidden[:, None, None], -torch.inf)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        """Store keys and values, attend, and return (1, slots, heads, dim)."""
        keys, values, mask = self.pool.keys[layer], self.pool.values[layer], self.masks[scores.rule]
        more = (scores.scaling, scores.softcap, scores.sinks)
        return _attend(keys, values, self.slots, self.positions, mask, query, key, value, *more)

    def recur(self, layer: int, hidden: Tensor, rows: Rows) -> Tensor:
        """Run one token of every slot (1, slots, width) through a recurrent layer; idle slots keep their states."""
        return self.pool.states.step(layer, hidden, rows, active=self.positions < self.pool.max_tokens - 1)


@torch.library.custom_op("lightning_mem1::attend", mutates_args=("keys", "values"))
def _attend(
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    positions: Tensor,
    mask: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """One operator to torch.compile, which would otherwise copy the layer's keys and values for every token stored."""
    own_keys, own_values = store(keys, values, slots, positions, key, value)
    k, v = (pool[:, :, : mask.shape[-1]] for pool in (own_keys, own_values))
    scores = Scores(scaling, softcap=softcap, sinks=sinks)
    return attend_once(query[0].transpose(0, 1), k, v, mask, scores)[None].contiguous()


@_attend.register_fake
def _(*args: Any) -> Tensor:
    query, value = args[5], args[7]
    return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])


def _forward(model: Any, head: Head, step: Step) -> Any:
    step.look_back()
    hidden = backbone(model)(
        input_ids=step.input_ids,
        position_ids=step.positions[None],
        use_cache=False,
        attention_mask=None,
        slots=step,
    ).last_hidden_state
    return head(hidden[0])


def lengths(most: int) -> list[int]:
    """How far back steps may look: the longest context, its half, and so on.

    >>> lengths(1536)
    [384, 768, 1536]
    """
    found = [most]
    while len(found) < MOST and found[0] // 2 >= SHORTEST:
        found.insert(0, -(-found[0] // 2))
    return found
