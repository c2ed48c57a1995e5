"""What the recurrences of transformers' layers lack to be run in rows.

The layers call functions of their modeling file, which are reference code or, where the packages are installed,
kernels of flash-linear-attention, mamba-ssm and causal-conv1d. `prepare` puts a wrapper around those of one file that
does nothing but inside `rows_from`, where:

- they run outside of autocast. States are float32 whatever the weights are; autocast would round what goes through a
  matrix product to 16 bits, chunk by chunk.
- the selective scan (Mamba 1) starts from a state. transformers' layers drop it when they continue with more than one
  token, and the kernel takes none.
- single steps of a Mamba 2 layer keep to the limits of its time step, as scans do. transformers' steps do not: a token
  would have other log-probs when it is generated than when it is scored.
- on a CPU chunks are short: less is padded, and less is lost. In chunks of 64, the gated delta rule of Qwen3-Next and
  Qwen3.5 takes differences of logarithms of decay so large that float32 leaves 2e-5 nats of error; 16 leave 7e-6.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SCAN = "mamba_selective_scan"
STEP = "mamba2_selective_state_update"
CPU_CHUNKS = {"torch_chunk_gated_delta_rule": 16, "mamba2_chunk_scan": 32}  # tokens
OTHERS = (
    "chunk_kimi_delta_attention",
    "recurrent_kimi_delta_attention",
    "mamba_selective_state_update",
    "torch_recurrent_gated_delta_rule",
)
NO_LIMIT = (0.0, float("inf"))
Limits = tuple[float, float]
_rows: ContextVar[tuple[Tensor | None, Limits] | None] = ContextVar("rows", default=None)


@contextmanager
def rows_from(state: Tensor | None, limits: Sequence[float] = NO_LIMIT) -> Iterator[None]:
    """Around a layer's forward in rows, in this thread.

    Args:
        state: Where selective scans start (rows, channels, width); None for zero.
        limits: Shortest and longest time step of a Mamba 2 layer.
    """
    token = _rows.set((state, (float(limits[0]), float(limits[1]))))
    try:
        yield
    finally:
        _rows.reset(token)


def prepare(layer: type) -> None:
    """Wrap the recurrences that a class of layers calls (safe to repeat)."""
    modeling = sys.modules[layer.__module__]
    for name in (SCAN, STEP, *CPU_CHUNKS, *OTHERS):
        function = getattr(modeling, name, None)
        if function is not None and not hasattr(function, "as_it_was"):
            setattr(modeling, name, _wrapped(function, name))


def _wrapped(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    @wraps(function)
    def wrapper(first: Tensor, *args: Any, **kwargs: Any) -> Any:
        now = _rows.get()
        if now is None:
            return function(first, *args, **kwargs)
        state, limits = now
        if name in CPU_CHUNKS and first.device.type == "cpu":
            kwargs["chunk_size"] = min(CPU_CHUNKS[name], kwargs.get("chunk_size", CPU_CHUNKS[name]))
        with torch.autocast(first.device.type, enabled=False):
            if name == SCAN and state is not None:
                return _scan_from(state, function, first, *args, **kwargs)
            if name == STEP and limits != NO_LIMIT:
                return _limited_step(limits, function, first, *args, **kwargs)
            return function(first, *args, **kwargs)

    wrapper.as_it_was = function  # type: ignore[attr-defined]
    return wrapper


def _limited_step(
    limits: Limits,
    step: Callable[..., Any],
    state: Tensor,
    hidden_states: Tensor,
    dt: Tensor,
    *args: Any,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    **kwargs: Any,
) -> Any:
    """A step whose time is kept within limits; dt (rows, heads, width)."""
    time = dt if dt_bias is None else dt + dt_bias.to(dt.dtype)
    time = F.softplus(time) if dt_softplus else time
    return step(state, hidden_states, time.clamp(*limits), *args, **kwargs)


def _scan_from(
    state: Tensor,
    scan: Callable[..., Any],
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,  # noqa: N803  (names of the kernel)
    B: Tensor,  # noqa: N803
    C: Tensor,  # noqa: N803
    return_last_state: bool = False,
    **kwargs: Any,
) -> Any:
    """A selective scan from a state (rows, channels, width).

    The recurrence h_t = exp(A d_t) h_{t-1} + d_t B_t x_t is linear in h: what a first state adds to the scan from zero
    is its own decay, read out by C_t.
    """
    out, last = scan(hidden_states, dt, A, B, C, return_last_state=True, **kwargs)
    steps, bias, gate = dt.float(), kwargs.get("delta_bias"), kwargs.get("z")
    if bias is not None:
        steps = steps + bias.float()[:, None]
    if kwargs.get("delta_softplus"):
        steps = F.softplus(steps)
    decay = torch.exp(A.float()[:, None] * steps.cumsum(-1)[..., None])  # (rows, channels, tokens, width)
    added = torch.einsum("bctn,bcn,bnt->bct", decay, state.float(), C.float())
    if gate is not None:
        added = added * F.silu(gate.float())
    last = last + decay[:, :, -1] * state
    out = out + added.to(out.dtype)
    return (out, last) if return_last_state else out
