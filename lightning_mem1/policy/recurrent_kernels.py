"""What the recurrences of transformers' layers lack to be run in rows.

The layers call functions of their modeling file, which are reference code or, where the packages are installed,
kernels of flash-linear-attention, mamba-ssm and causal-conv1d. `prepare` puts a wrapper around those of one file that
does nothing but inside `rows_from`, where:

- they run outside of autocast. States are float32 whatever the weights are; autocast would round what goes through a
  matrix product to 16 bits, chunk by chunk.
- the selective scan (Mamba 1) starts from a state. transformers' layers drop it when they continue with more than one
  token, and the kernel takes none.
- on a CPU chunks are short: less is padded, and less is lost. In chunks of 64, the gated delta rule of Qwen3-Next and
  Qwen3.5 takes differences of logarithms of decay so large that float32 leaves 2e-5 nats of error; 16 leave 7e-6.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SCAN = "mamba_selective_scan"
CPU_CHUNKS = {"torch_chunk_gated_delta_rule": 16, "mamba2_chunk_scan": 32}  # tokens
STEPS = ("mamba_selective_state_update", "mamba2_selective_state_update", "torch_recurrent_gated_delta_rule")
_rows: ContextVar[tuple[Tensor | None] | None] = ContextVar("rows", default=None)


@contextmanager
def rows_from(state: Tensor | None) -> Iterator[None]:
    """Around a layer's forward in rows, in this thread.

    Args:
        state: Where selective scans start (rows, channels, width); None for zero.
    """
    token = _rows.set((state,))
    try:
        yield
    finally:
        _rows.reset(token)


def prepare(layer: type) -> None:
    """Wrap the recurrences that a class of layers calls (safe to repeat)."""
    modeling = sys.modules[layer.__module__]
    for name in (SCAN, *CPU_CHUNKS, *STEPS):
        function = getattr(modeling, name, None)
        if function is not None and not hasattr(function, "as_it_was"):
            setattr(modeling, name, _wrapped(function, name))


def _wrapped(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    @wraps(function)
    def wrapper(first: Tensor, *args: Any, **kwargs: Any) -> Any:
        start = _rows.get()
        if start is None:
            return function(first, *args, **kwargs)
        if name in CPU_CHUNKS and first.device.type == "cpu":
            kwargs["chunk_size"] = min(CPU_CHUNKS[name], kwargs.get("chunk_size", CPU_CHUNKS[name]))
        with torch.autocast(first.device.type, enabled=False):
            if name == SCAN and start[0] is not None:
                return _scan_from(start[0], function, first, *args, **kwargs)
            return function(first, *args, **kwargs)

    wrapper.as_it_was = function  # type: ignore[attr-defined]
    return wrapper


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
