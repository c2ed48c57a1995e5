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

    from lightning_mem1.policy.policy import LoraSettings, Policy
    from lightning_mem1.training import checkpoint_state

    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    checkpoint_state.migrate(checkpoint)
    settings = checkpoint_state.settings_of(checkpoint)
    lora = LoraSettings(**settings["lora"]) if settings["lora"] else None
    compute = {name: settings["compute"][name] for name in ("dtype", "quantization") if name in settings["compute"]}
    policy = Policy.load(source or str(settings["policy"]), lora=lora, **compute)
    checkpoint_state.check_base(checkpoint_state.entry_of(checkpoint), policy)
    policy.load_adapter_state(checkpoint_state.policy_weights(checkpoint))
    return policy
