"""A trained policy: from a checkpoint of training, a folder, or by name."""

from __future__ import annotations

from pathlib import Path

from lightning_mem1.policy.policy import Policy
from lightning_mem1.policy.settings import LoraSettings
from lightning_mem1.training import checkpoint_state
from lightning_mem1.training.checkpoint_shape import check_shape


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
    checkpoint = checkpoint_state.read(path)
    check_shape(checkpoint)
    checkpoint_state.migrate(checkpoint)
    settings = checkpoint_state.settings_of(checkpoint)
    lora = LoraSettings(**settings["lora"]) if settings["lora"] else None
    compute = {name: settings["compute"][name] for name in ("dtype", "quantization") if name in settings["compute"]}
    policy = Policy.load(base or str(settings["policy"]), lora=lora, **compute)
    checkpoint_state.check_base(checkpoint_state.entry_of(checkpoint), policy)
    policy.load_adapter_state(checkpoint_state.policy_weights(checkpoint))
    return policy
