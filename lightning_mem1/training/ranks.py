"""The ranks of a run as one: sums and largest values over all of them, and when their gradients meet."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_mem1.policy.parts import is_part


class Ranks:
    """Every rank has to call each of these methods, as often as the others; alone they change nothing.

    Args:
        trainer: Gives the trainer, once there is one.
        device: Gives the device that tensors meet on.
    """

    def __init__(self, trainer: Callable[[], Trainer], device: Callable[[], torch.device]) -> None:
        self._trainer, self._device = trainer, device

    def reduce(self, tensor: Tensor, operation: str) -> Tensor:
        """The "sum" or the "max" over ranks, element by element."""
        trainer = self._trainer()
        if trainer.world_size > 1:
            tensor = trainer.strategy.reduce(tensor.to(self._device()), reduce_op=operation).to(tensor)
        return tensor

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, element by element."""
        return self.reduce(tensor, "sum")

    def sum(self, number: float) -> float:
        """The sum over ranks of a number of each."""
        return float(self.total(torch.tensor(float(number))))

    def most(self, number: float) -> float:
        """The largest of the ranks' numbers."""
        return float(self.reduce(torch.tensor(float(number)), "max"))

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add the gradients of parameters up over ranks, in place; a rank that has none adds 0."""
        trainer = self._trainer()
        if trainer.world_size > 1:
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                if is_part(parameter):  # they were added up in each backward pass
                    continue
                parameter.grad = trainer.strategy.reduce(parameter.grad, reduce_op="sum")  # type: ignore[assignment]

    def apart(self) -> contextlib.AbstractContextManager[Any]:
        """Around a backward pass: ranks may take different numbers of passes, so gradients do not meet in each."""
        block = getattr(self._trainer().strategy, "block_backward_sync", None)
        return block() if block else contextlib.nullcontext()
