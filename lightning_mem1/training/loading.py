"""A trained policy: from a checkpoint of training, a folder, or by name."""

from __future__ import annotations

from pathlib import Path

import torch

from lightning_mem1.policy.critic import is_critics
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.training.checkpoint_state import check_checkpoint
from lightning_mem1.training.module import WEIGHTS_PREFIX


def load_policy(source: str | Path, base: str | None = None) -> Policy:
    """Load what plays.

    Args:
        source: A checkpoint of training (``last.ckpt``), a folder with a model or an adapter (an export, or a run's
            ``adapter``), "bundled", or a hub id.
        base: Where a checkpoint's base model is; None for where it was in training.

    Returns:
        The policy in evaluation mode on the CPU; `Policy.to` moves it. A critic's weights are left out.

    Raises:
        ValueError, FileNotFoundError: the weights or their base cannot be found, or the base is another one by now.
    """
    path = Path(source)
    policy = _of_checkpoint(path, base) if path.is_file() else Policy.load(str(source), lora=None)
    return policy.eval()


def _of_checkpoint(path: Path, base: str | None) -> Policy:
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    settings = checkpoint["lightning_mem1"]["settings"]
    lora = LoraSettings(**settings["lora"]) if settings["lora"] else None
    base = base or str(settings["policy"])
    quantization = settings.get("quantization", "none")
    policy = Policy.load(base, lora=lora, dtype=settings["dtype"], quantization=quantization)
    check_checkpoint(checkpoint, policy, base)
    weights = {name.removeprefix(WEIGHTS_PREFIX): value for name, value in checkpoint["state_dict"].items()}
    policy.load_adapter_state({name: value for name, value in weights.items() if not is_critics(name)})
    return policy
