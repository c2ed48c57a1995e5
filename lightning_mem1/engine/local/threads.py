"""Threads of the engine's passes on a CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

SMALL = 1e7  # multiplications in the largest product of a pass; with fewer, waking a thread costs more than it brings


def largest_weight(layers: Iterable[nn.Module]) -> int:
    """Numbers in the largest weight of some layers."""
    return max((weight.numel() for layer in layers for weight in layer.parameters()), default=0)


@contextmanager
def threads_for(tokens: int, largest: int, device: torch.device) -> Iterator[None]:
    """Around a pass of so many tokens, `largest` numbers in the largest weight: a small one on a CPU has one thread.

    Decode steps of small models are made of operations so short that two threads wait for each other most of the time.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or tokens * largest >= SMALL:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
