"""What a checkpoint says besides weights: which base they belong to, and the state of the random generators.

Everything is tensors and plain values, because checkpoints are only ever loaded with `weights_only`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lightning_mem1.context.modes import MODES
from lightning_mem1.policy.critic import is_critics
from lightning_mem1.policy.policy import Policy


def base_fingerprint(policy: Policy) -> str:
    """Sixteen hex digits of what is frozen: shapes and first values, as bfloat16, so that every dtype agrees.

    The policy remembers them: a base that is shared out among ranks has its first values elsewhere.
    """
    if policy.fingerprint is None:
        policy.fingerprint = _digest(policy)
    return policy.fingerprint


def _digest(policy: Policy) -> str:
    digest = hashlib.sha256()
    for name, parameter in policy.named_parameters():
        if not parameter.requires_grad and not is_critics(name):
            values = parameter.detach().flatten()[:64].to(torch.bfloat16).view(torch.uint8).cpu()
            digest.update(f"{tuple(parameter.shape)}".encode() + bytes(values.tolist()))
    return digest.hexdigest()[:16]


def snapshot(policy: Policy, settings: Mapping[str, Any], rl_step: int) -> dict[str, Any]:
    """This package's entry of a checkpoint; `settings` are the module's, with the policy's source."""
    return {
        "rl_step": rl_step,
        "policy": settings["policy"],
        "base": base_fingerprint(policy),
        "settings": settings,
        "rng": rng_of_ranks(),
    }


def check_checkpoint(checkpoint: Mapping[str, Any], policy: Policy, source: str) -> dict[str, Any]:
    """This package's entry of a checkpoint.

    Args:
        checkpoint: As loaded.
        policy: The policy that its weights are for.
        source: Where the policy came from.

    Raises:
        ValueError: it is another program's, or belongs to another base.
    """
    ours = checkpoint.get("lightning_mem1")
    if not isinstance(ours, dict):
        raise ValueError(
            "not a checkpoint of lightning_mem1: expected an entry 'lightning_mem1', got only "
            f"{', '.join(sorted(checkpoint))}; set --ckpt_path to a file that this package wrote"
        )
    base = base_fingerprint(policy)
    if ours["base"] != base:
        raise ValueError(
            f"checkpoint belongs to another base policy: expected '{source}' ({base}), got "
            f"'{ours['policy']}' ({ours['base']}); set model.policy and model.quantization as it was trained"
        )
    return {**ours, "settings": with_memory(ours["settings"])}


def with_memory(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A module's settings in today's words for memory and format; those of today as they are.

    Before, `memory` was a word beside `window` and `rollout.note_embedding`, which most modes had no use for, and
    `rollout.format` was called wire::

        memory amem, window 4, rollout {wire qa, note_embedding FOLDER, ...}
        memory {mode amem, window 4, note_embedding FOLDER}, rollout {format qa, ...}
    """
    found = {**settings, "rollout": dict(plain(settings["rollout"]))}
    beside = {"window": found.pop("window", None), "note_embedding": found["rollout"].pop("note_embedding", None)}
    if "wire" in found["rollout"]:
        found["rollout"]["format"] = found["rollout"].pop("wire")
    if isinstance(found["memory"], str):
        kind = MODES.get(found["memory"])
        known = {each.name for each in dataclasses.fields(kind)} if kind else set()
        found["memory"] = {
            "mode": found["memory"],
            **{key: beside[key] for key in known if beside.get(key) is not None},
        }
    return found


def check_scale(checkpoint: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """The adapter's scale is in no weight's shape: another alpha would make another policy of the same numbers.

    Args:
        checkpoint: This package's entry of it.
        settings: Those of the module that takes its weights.

    Raises:
        ValueError: it was trained with another alpha.
    """
    theirs, ours = ((each.get("lora") or {}).get("alpha") for each in (checkpoint["settings"], settings))
    if None not in (theirs, ours) and theirs != ours:
        raise ValueError(
            f"adapter was trained with another scale: expected model.lora.alpha {theirs:g}, got {ours:g}; set it to "
            f"{theirs:g}"
        )


def rng_of_ranks() -> list[dict[str, Any]]:
    """The random state of every rank, in order; every rank has to call it."""
    states = [rng_state()]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        states *= torch.distributed.get_world_size()
        torch.distributed.all_gather_object(states, states[0])
    return states


def rng_state() -> dict[str, Any]:
    """Random state as tensors and plain numbers, so that it loads with `weights_only`."""
    version, words, gauss = random.getstate()
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": [version, list(words), gauss]}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(states: Sequence[Mapping[str, Any]], rank: int) -> None:
    """Put a rank's random state back, one that was not there before takes the first one's; other GPUs keep theirs."""
    state = states[rank if rank < len(states) else 0]
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


def plain(value: Any) -> Any:
    """Dataclasses as dicts, so that a checkpoint loads with `weights_only`."""
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
