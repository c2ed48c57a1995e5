"""A trained policy from a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_mem1.policy.policy import Policy


def policy_of(path: str, source: str | None = None) -> Policy:
    """The policy of a checkpoint: the base and adapter that it names, with its weights; a critic's are left out.

    Args:
        path: The checkpoint.
        source: Where its base is; None for where it was in training.

    Raises:
        ValueError, FileNotFoundError: its base is not to be found, or is another one by now.
    """
    import torch

    from lightning_mem1.policy.critic import is_critics
    from lightning_mem1.policy.policy import LoraSettings, Policy
    from lightning_mem1.training.checkpoint_state import check_checkpoint
    from lightning_mem1.training.module import WEIGHTS_PREFIX

    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    settings = checkpoint["lightning_mem1"]["settings"]
    lora = LoraSettings(**settings["lora"]) if settings["lora"] else None
    source = source or str(settings["policy"])
    quantization = settings.get("quantization", "none")
    policy = Policy.load(source, lora=lora, dtype=settings["dtype"], quantization=quantization)
    check_checkpoint(checkpoint, policy, source)
    weights = {name.removeprefix(WEIGHTS_PREFIX): value for name, value in checkpoint["state_dict"].items()}
    policy.load_adapter_state({name: value for name, value in weights.items() if not is_critics(name)})
    return policy
