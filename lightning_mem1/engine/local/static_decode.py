"""Decode steps whose shapes never change, so that torch.compile and CUDA graphs have nothing to make again.

Every slot takes part in every step, whether a turn runs in it or not. How far back a step looks is rounded up to one of
a few lengths, each compiled or captured once; buffers stay where they are, and the pool with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mem1.engine.local.slots import SlotPool, Span, store
from lightning_mem1.policy.recurrent import Rows, along, leave_uncompiled

SHORTEST = 256  # tokens; looking back less far saves little
MOST = 6  # lengths: torch.compile gives up on a function that it had to compile more often than eight times
Forward = Callable[[Any, "_Step"], Tensor]  # model and step -> logits (slots, vocabulary)


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
        self.pool, self.model = pool, model
        self._steps = {reach: _Step(pool, reach) for reach in lengths(pool.keys.shape[3])}
        captures = pool.keys.is_cuda
        forward: Forward = _forward
        if backend != "cudagraphs" or not captures:
            leave_uncompiled(model)
            forward = torch.compile(_forward, backend=backend, dynamic=False)
        self._forward = _Captured(forward) if captures else forward

    def logits(self, decode: Sequence[Span], tokens: Sequence[int]) -> Tensor:
        """Logits (turns, vocabulary) after one new token of each running turn."""
        reach = max(span.start for span in decode) + 1
        step = self._steps[min(length for length in self._steps if length >= reach)]
        step.set(decode, tokens)
        with along(slots=step):
            logits = self._forward(self.model, step)
        slots = [span.slot for span in decode]
        if slots == list(range(len(slots))):
            return logits[: len(slots)]
        # a list would be sent to a GPU as an index that it waits for
        return logits.index_select(0, torch.tensor(slots).to(logits.device, non_blocking=True))


class _Captured:
    """A forward pass of one model as CUDA graphs, one for each step: kernels start without a line of Python between.

    A step may be run again at any time, because it writes the same keys to the same places; the states of recurrent
    layers are put back. What comes back stands until its next call.
    """

    def __init__(self, forward: Forward) -> None:
        self._run = forward
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def __call__(self, model: Any, step: _Step) -> Tensor:
        if step.reach not in self._graphs:
            with step.pool.states.unchanged():
                self._graphs[step.reach] = _captured(lambda: self._run(model, step))
        graph, logits = self._graphs[step.reach]
        graph.replay()
        return logits


def _captured(run: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """A call as a graph, and where its result will stand."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):  # what is compiled, or made by kernels, at a first call must not be made within the graph
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # thread_local: one step off, another thread allocates while this one captures
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = run()
    return graph, result


class _Step:
    """The buffers of steps that look back equally far; what the attention function gets as ``slots=``."""

    def __init__(self, pool: SlotPool, reach: int) -> None:
        num_slots, device = pool.keys.shape[1], pool.keys.device
        self.pool, self.reach = pool, reach
        self.places = torch.arange(reach, device=device)
        self.slots = torch.arange(num_slots, device=device)
        self.inputs = torch.zeros(2, num_slots, dtype=torch.long, device=device)  # filled in one transfer
        self.input_ids, self.positions = self.inputs[:1], self.inputs[1]
        self.mask = torch.zeros(num_slots, 1, 1, reach, dtype=pool.keys.dtype, device=device)

    def set(self, decode: Sequence[Span], tokens: Sequence[int]) -> None:
        """Fill the buffers; an idle slot writes to its last place, which no turn reaches, and reads its first."""
        ids = [0] * len(self.slots)
        positions = [self.pool.keys.shape[3] - 1] * len(self.slots)
        for span, token in zip(decode, tokens, strict=True):
            ids[span.slot], positions[span.slot] = token, span.start
        self.inputs.copy_(torch.tensor([ids, positions]), non_blocking=True)  # a GPU that is busy is not waited for

    def look_back(self) -> None:
        """Set the mask from the positions; a part of the step, so that it is captured with it."""
        last = torch.where(self.positions < self.reach, self.positions, 0)
        self.mask.zero_().masked_fill_((self.places > last[:, None])[:, None, None], -torch.inf)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Store keys and values, attend, and return (1, slots, heads, dim)."""
        pool = self.pool
        return _attend(pool.keys, pool.values, layer, self.slots, self.positions, self.mask, query, key, value, scaling)

    def recur(self, layer: int, hidden: Tensor, rows: Rows) -> Tensor:
        """Run one token of every slot (1, slots, width) through a recurrent layer; idle slots keep their states."""
        return self.pool.states.step(layer, hidden, rows, active=self.positions < self.pool.keys.shape[3] - 1)


@torch.library.custom_op("lightning_mem1::attend", mutates_args=("keys", "values"))
def _attend(
    keys: Tensor,
    values: Tensor,
    layer: int,
    slots: Tensor,
    positions: Tensor,
    mask: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
) -> Tensor:
    """One operator to torch.compile, which would otherwise copy the layer's keys and values for every token stored."""
    own_keys, own_values = store(keys[layer], values[layer], slots, positions, key, value)
    heads, width = query.shape[1], query.shape[3]
    q = query[0].transpose(0, 1).reshape(len(slots), own_keys.shape[1], -1, width)
    k, v = (pool[:, :, : mask.shape[-1]] for pool in (own_keys, own_values))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
    return out.reshape(1, len(slots), heads, width)


@_attend.register_fake
def _(*args: Any) -> Tensor:
    query = args[6]
    return query.new_empty(1, query.shape[2], query.shape[1], query.shape[3])


def _forward(model: Any, step: _Step) -> Any:
    step.look_back()
    hidden = model.model(
        input_ids=step.input_ids,
        position_ids=step.positions[None],
        use_cache=False,
        attention_mask=None,
        slots=step,
    ).last_hidden_state
    return model.lm_head(hidden[0])


def lengths(most: int) -> list[int]:
    """How far back steps may look: the longest context, its half, and so on.

    >>> lengths(1536)
    [384, 768, 1536]
    """
    found = [most]
    while len(found) < MOST and found[0] // 2 >= SHORTEST:
        found.insert(0, -(-found[0] // 2))
    return found
