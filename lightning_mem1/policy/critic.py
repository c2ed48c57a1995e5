"""The critic: LoRA adapter `critic` and a value head on the policy's own base, so there is no second model in memory.

A value is read from the hidden state that predicts an action token: it is what the critic expects before the token is
drawn. While the critic's adapter is on, the policy's is off; neither ever sees the other's gradient. A critic with a
base of its own (`CriticSettings.policy`) is a second model that reads the same tokens.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mem1.policy.policy import Policy, ScoredBatch
from lightning_mem1.policy.settings import CriticSettings

CRITIC = "critic"


class Critic(nn.Module):
    """Expects the rest of an episode's reward before each action token.

    It owns its value head, and its base where that is another one than the policy's; its adapter on the policy's base
    is the policy's to store.

    Args:
        policy: Gets the adapter.
        settings: Of the adapter and the learning. The head starts at 0, so every first value is exactly 0.
        gradient_checkpointing: Of a base of its own.

    Raises:
        ValueError: the policy has no adapter, so its base would move under the critic; or the critic's own base reads
            other tokens.
    """

    def __init__(self, policy: Policy, settings: CriticSettings, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.settings = settings
        self._policy = (policy,)  # in a tuple: no part of the critic
        self.own_base: Policy | None = None
        if settings.policy is None:
            policy.add_adapter(CRITIC, settings)
        else:
            self.own_base = _own_base(policy, settings, settings.policy, gradient_checkpointing)
        self.head = nn.Linear(self.base.config.hidden_size, 1, device=policy.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def base(self) -> Policy:
        """The model that it reads hidden states of."""
        return self._policy[0] if self.own_base is None else self.own_base

    def on(self) -> contextlib.AbstractContextManager[None]:
        """Around its passes: its adapter is on, the policy's is off (see `Policy.adapter`)."""
        return self.base.adapter(CRITIC) if self.own_base is None else contextlib.nullcontext()

    def values(self, batch: ScoredBatch) -> Tensor:
        """Values of the action tokens.

        Args:
            batch: From `collate.collate`, on the policy's device.

        Returns:
            (N,) float32, whatever the base's dtype, in units of (shaped) reward, in the batch's order of action tokens.
            For a backward pass under gradient checkpointing, see `Policy.adapter`.
        """
        with self.on():
            hidden = self.base.predicting(batch)
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(hidden.float(), self.head.weight.float(), self.head.bias.float())[:, 0]

    def trained(self) -> list[nn.Parameter]:
        """The weights that train: its adapter, then its head."""
        adapter = self._policy[0].trained(CRITIC) if self.own_base is None else self.own_base.trained()
        return [*adapter.values(), *self.head.parameters()]

    def optimizer_group(self) -> dict[str, Any]:
        """What trains, with its learning rate, as torch's optimizers take it."""
        return {"params": self.trained(), "lr": self.settings.lr}


def _own_base(policy: Policy, settings: CriticSettings, source: str, gradient_checkpointing: bool) -> Policy:
    dtype = str(policy.causal_lm.dtype).removeprefix("torch.")
    own = Policy.load(
        source,
        lora=settings,
        dtype=dtype,
        attention=policy.tree_kernel,
        gradient_checkpointing=gradient_checkpointing,
    )
    if own.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise ValueError(
            f"the critic reads other tokens than the policy: expected the vocabulary of '{policy.source}', got that of "
            f"'{source}'; set model.critic.policy to a model of the same family, or to null"
        )
    return own.to(policy.device)
