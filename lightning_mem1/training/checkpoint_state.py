"""What a checkpoint says besides weights: which base they belong to, and the state of the random generators.

Everything is tensors and plain values, because checkpoints are only ever loaded with `weights_only`.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from lightning_mem1.checks import MOVED
from lightning_mem1.context.modes import MODES
from lightning_mem1.policy.critic import CRITIC
from lightning_mem1.policy.policy import Policy
from lightning_mem1.training.checkpoint_shards import join
from lightning_mem1.training.plain_settings import plain

ENTRY = "lightning_mem1"  # this package's own entry of a checkpoint
FORMAT = 2
WEIGHTS_PREFIX = "policy."  # name of the policy inside the module, as Lightning writes it into checkpoints
FIRST_NAMES = {"policy.value_head.": "critic.head.", "policy.critic_model.": "critic.own_base."}  # of format 1


def base_fingerprint(policy: Policy) -> str:
    """Sixteen hex digits of what is frozen: shapes and first values, as bfloat16, so that every dtype agrees.

    The policy remembers them: a base that is shared out among ranks has its first values elsewhere.
    """
    if policy.fingerprint is None:
        policy.fingerprint = _digest(policy)
    return policy.fingerprint


def _digest(policy: Policy) -> str:
    digest = hashlib.sha256()
    for parameter in policy.parameters():
        if not parameter.requires_grad:
            values = parameter.detach().flatten()[:64].to(torch.bfloat16).view(torch.uint8).cpu()
            digest.update(f"{tuple(parameter.shape)}".encode() + bytes(values.tolist()))
    return digest.hexdigest()[:16]


def read(path: Any) -> dict[str, Any]:
    """The content of a checkpoint: of a file, an address that fsspec knows, or an open file, which is wound back."""
    if hasattr(path, "read"):
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        path.seek(0)
        return content
    return join(TorchCheckpointIO().load_checkpoint(path, weights_only=True), path)


def snapshot(policy: Policy, rl_step: int) -> dict[str, Any]:
    """This package's entry of a checkpoint; the module's settings are in Lightning's ``hyper_parameters``."""
    return {
        "format": FORMAT,
        "rl_step": rl_step,
        "policy": policy.source,
        "base": base_fingerprint(policy),
        "rng": rng_of_ranks(),
    }


def entry_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """This package's entry of a checkpoint.

    Raises:
        ValueError: it is another program's, or a later version's.
    """
    entry = checkpoint.get(ENTRY)
    if not isinstance(entry, dict):
        raise ValueError(
            f"not a checkpoint of lightning_mem1: expected an entry '{ENTRY}', got only "
            f"{', '.join(sorted(checkpoint))}; set --ckpt_path to a file that this package wrote"
        )
    number = entry.get("format", 1)
    if not isinstance(number, int) or number < 1:
        raise ValueError(
            f"not a checkpoint of lightning_mem1: expected a format from 1 to {FORMAT}, got {number!r:.40}; set "
            "--ckpt_path to a file that this package wrote"
        )
    if number > FORMAT:
        raise ValueError(
            f"checkpoint of a later version: expected format {FORMAT} at most, got {number}; install the "
            "version of lightning_mem1 that wrote it"
        )
    return entry


def with_memory(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A module's settings in today's words for memory and format; those of today as they are.

    Before, `memory` was a word next to `window` and `rollout.note_embedding`, which most modes had no use for, and
    `rollout.format` was called wire::

        memory amem, window 4, rollout {wire qa, note_embedding FOLDER, ...}
        memory {mode amem, window 4, note_embedding FOLDER}, rollout {format qa, ...}
    """
    found = {**settings, "rollout": dict(plain(settings["rollout"]))}
    given = {"window": found.pop("window", None), "note_embedding": found["rollout"].pop("note_embedding", None)}
    if "wire" in found["rollout"]:
        found["rollout"]["format"] = found["rollout"].pop("wire")
    if isinstance(found["memory"], str):
        kind = MODES.get(found["memory"])
        known = {each.name for each in dataclasses.fields(kind)} if kind else set()
        found["memory"] = {
            "mode": found["memory"],
            **{key: given[key] for key in known if given.get(key) is not None},
        }
    return found


def settings_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the module that a checkpoint is of, as plain values, by their present names.

    Raises:
        ValueError: it is another program's, or a later version's.
    """
    entry = entry_of(checkpoint)
    if entry.get("format", 1) > 1:
        return dict(checkpoint["hyper_parameters"])
    return _renamed(with_memory(entry["settings"]))


def migrate(checkpoint: dict[str, Any]) -> None:
    """Bring a checkpoint of format 1 to the present one, in place; its flat settings stay where they are.

    There the critic's head and base were the policy's to store, and the weights that sample one step off had them too.

    Raises:
        ValueError: it is another program's, or a later version's.
    """
    if entry_of(checkpoint).get("format", 1) > 1:
        return
    checkpoint["state_dict"] = {_present_name(name): weight for name, weight in checkpoint["state_dict"].items()}
    if behind := checkpoint.get("callbacks", {}).get("RolloutCallback", {}).get("behind"):
        named = {name: _present_name(f"{WEIGHTS_PREFIX}{name}") for name in behind["weights"]}
        behind["weights"] = {name: behind["weights"][name] for name in named if _is_policys(named[name])}


def _present_name(name: str) -> str:
    """A weight of format 1, by its name in the module, as it is named now."""
    for old, new in FIRST_NAMES.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _is_policys(name: str) -> bool:
    """Whether a weight, by its name in the module, is the policy's own and not a critic's."""
    return name.startswith(WEIGHTS_PREFIX) and f".{CRITIC}." not in name


def _renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The flat settings of format 1 in their groups."""
    found = copy.deepcopy(dict(settings))
    for old, new in MOVED.items():
        *groups, name = old.removeprefix("model.").split(".")
        if old.startswith("model.") and name in (place := _group(found, groups)):
            value = place.pop(name)
            *groups, name = new.removeprefix("model.").split(".")
            _group(found, groups)[name] = value
    return found


def _group(settings: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    for name in names:
        settings = settings.setdefault(name, {})
    return settings


def policy_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The policy's own trained weights in a checkpoint of the present format, by their names in the policy."""
    weights = checkpoint["state_dict"].items()
    return {name.removeprefix(WEIGHTS_PREFIX): weight for name, weight in weights if _is_policys(name)}


def check_base(entry: Mapping[str, Any], policy: Policy) -> None:
    """Raise ValueError when a checkpoint, by its entry, belongs to another base than the policy's."""
    base = base_fingerprint(policy)
    if entry["base"] != base:
        raise ValueError(
            f"checkpoint belongs to another base policy: expected '{policy.source}' ({base}), got "
            f"'{entry['policy']}' ({entry['base']}); set model.policy and model.compute.quantization as it was trained"
        )


def check_scale(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """The adapter's scale is in no weight's shape: another alpha would make another policy of the same numbers.

    Args:
        theirs: Settings that a checkpoint was made with.
        ours: Those of the module that takes its weights.

    Raises:
        ValueError: it was trained with another alpha.
    """
    trained, given = ((each.get("lora") or {}).get("alpha") for each in (theirs, ours))
    if None not in (trained, given) and trained != given:
        raise ValueError(
            f"adapter was trained with another scale: expected model.lora.alpha {trained:g}, got {given:g}; set it to "
            f"{trained:g}"
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
