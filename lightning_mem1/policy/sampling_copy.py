"""The policy that samples: the one that trains, or a copy of it that keeps older weights while the other one moves on.

A copy shares the frozen base, tensor by tensor, and has adapters and a tokenizer of its own, so that another thread may
generate with it: a tokenizer is no place for two.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from lightning_mem1.policy.policy import Policy
from lightning_mem1.policy.sharding import is_sharded


class SamplingPolicy:
    """What the engine generates with.

    Args:
        policy: The one that trains.
        rl_step: Says of which rl_step its weights are.
        apart: Whether there is a copy; without one every method that changes weights does nothing.

    Raises:
        ValueError: a copy of a base that is shared out among ranks.
    """

    def __init__(self, policy: Policy, rl_step: Callable[[], int], apart: bool) -> None:
        if apart and is_sharded(policy):
            raise ValueError(
                "collection one step off needs the whole base: expected trainer.strategy ddp or auto, got a base that "
                "is shared out among ranks; set model.engine.one_step_off false or another strategy"
            )
        self.trained, self.apart, self.device = policy, apart, policy.device
        self.policy = _copy(policy) if apart else policy
        self._rl_step, self._version = rl_step, rl_step()

    @property
    def version(self) -> int:
        """The rl_step that the weights are of."""
        return self._version if self.apart else self._rl_step()

    def push(self) -> None:
        """Take the trained weights as they are now; nothing may be generating."""
        if self.apart:
            self.policy.load_adapter_state(self.trained.adapter_state())
            self._version = self._rl_step()

    def state(self) -> dict[str, Any]:
        """The weights that sample, on the CPU, and their rl_step; plain values and tensors."""
        return {"rl_step": self.version, "weights": self.policy.adapter_state()}

    def load(self, state: dict[str, Any]) -> None:
        """Take the weights of a `state`.

        Raises:
            ValueError: they do not fit.
        """
        if self.apart:
            self.policy.load_adapter_state(state["weights"])
            self._version = int(state["rl_step"])


def _copy(policy: Policy) -> Policy:
    """A policy in evaluation mode whose frozen weights are those of another one, and whose trained ones are not."""
    shared: dict[int, Any] = {id(p): p for p in policy.parameters() if not p.requires_grad}
    return copy.deepcopy(policy, shared).eval()
