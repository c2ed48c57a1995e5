"""The critic: LoRA adapter `critic` and a value head on the policy's own base, so there is no second model in memory.

A value is read from the hidden state that predicts an action token: it is what the critic expects before the token is
drawn. While the critic's adapter is on, the policy's is off; neither ever sees the other's gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mem1.policy.policy import LoraSettings, Policy, ScoredBatch

CRITIC = "critic"


@dataclass
class CriticSettings(LoraSettings):
    """The critic (ppo): its adapter, and how it learns.

    Args:
        lr: Learning rate of the adapter and the value head; it has no warm-up of its own.
        value_clip: How far a value may move from the one before the update, in units of reward; null for no clip.
        warmup_steps: rl_steps at the start in which the critic learns alone.
        r: Rank of the update.
        alpha: Scale; the update is multiplied by alpha / r.
        dropout: Dropout on the adapter's input.
        target_modules: Module names, or "all-linear" for every linear layer but the head.
    """

    lr: float = 1e-3
    value_clip: float | None = 0.5
    warmup_steps: int = 0


class Critic:
    """Expects the rest of an episode's reward before each action token.

    Its weights live in the policy (the adapter, and `Policy.value_head`), which moves, stores and restores them.

    Args:
        policy: Gets the adapter and the head; the head starts at 0, so every first value is exactly 0.
        settings: Of the adapter and the learning.

    Raises:
        ValueError: the policy has no adapter: its base trains, and would move under the critic.
    """

    def __init__(self, policy: Policy, settings: CriticSettings) -> None:
        self.policy, self.settings = policy, settings
        policy.add_adapter(CRITIC, settings)
        head = nn.Linear(policy.config.hidden_size, 1, device=policy.device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        policy.value_head = head

    def values(self, batch: ScoredBatch) -> Tensor:
        """Values of the action tokens.

        Args:
            batch: From `collator.collate`, on the policy's device.

        Returns:
            (N,) float32, whatever the base's dtype, in units of (shaped) reward, in the batch's order of action tokens.
            For a backward pass under gradient checkpointing, see `Policy.adapter`.
        """
        with self.policy.adapter(CRITIC):
            hidden = self.policy.predicting(batch)
        head = self.policy.value_head
        assert isinstance(head, nn.Linear)
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(hidden.float(), head.weight.float(), head.bias.float())[:, 0]


def trained_parameters(policy: Policy) -> dict[str, list[nn.Parameter]]:
    """What trains, by whom it belongs to: ``policy``, and ``critic`` when there is one."""
    found: dict[str, list[nn.Parameter]] = {"policy": []}
    for name, parameter in policy.named_parameters():
        if parameter.requires_grad:
            found.setdefault(CRITIC if is_critics(name) else "policy", []).append(parameter)
    return found


def is_critics(name: str) -> bool:
    """Whether a weight of a policy, by its name, is the critic's."""
    return name.startswith("value_head.") or f".{CRITIC}." in name
