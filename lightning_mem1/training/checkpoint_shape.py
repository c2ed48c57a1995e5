"""Whether a checkpoint holds what a checkpoint holds: looked at before anything is made of it, and named where not.

A file may be cut, of another program, or saved with weights alone. Whatever is missing would be guessed or left at its
start, and a run that resumes would quietly be another one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_mem1.checks import MOST
from lightning_mem1.policy.parts import here
from lightning_mem1.training.checkpoint_shards import SHARDS, checked_folder
from lightning_mem1.training.checkpoint_state import ENTRY, entry_of

Part = tuple[Callable[[Any], bool], str]  # whether a value is as it should be, and what that is
SCORED = "set --ckpt_path to another one, e.g. checkpoints/best.ckpt"
RESUMED = (
    f"{SCORED}, or begin a new run with its weights: mem1 export --ckpt_path FILE --output DIR, then model.policy DIR"
)


def check_shape(checkpoint: Mapping[str, Any], path: str = "") -> None:
    """Raise ValueError where a checkpoint lacks what its weights need or holds something else; names its path."""
    old = entry_of(checkpoint).get("format", 1) == 1
    settings = f"{ENTRY}.settings" if old else "hyper_parameters"
    for key, part in {**_OF_WEIGHTS, settings: _SETTINGS}.items():
        _check(checkpoint, key, part, path, SCORED)
    if SHARDS in checkpoint and path:
        checked_folder(checkpoint, path)
    broken = [name for name, weight in checkpoint["state_dict"].items() if not here(weight).isfinite().all()]
    if broken:
        raise ValueError(
            f"broken checkpoint{_named(path)}: expected finite weights, got nan or infinity in '{broken[0]}'"
            f"{f' and {len(broken) - 1} more' if broken[1:] else ''}; {SCORED}"
        )


def check_resumable(checkpoint: Mapping[str, Any], path: str = "") -> None:
    """Raise ValueError where a checkpoint lacks what a run needs to continue as if it had never stopped."""
    check_shape(checkpoint, path)
    for key, part in _OF_RUNS.items():
        _check(checkpoint, key, part, path, RESUMED)
    kept = SHARDS in checkpoint or any(each["state"] for each in checkpoint["optimizer_states"])
    if checkpoint["global_step"] and not kept:
        raise ValueError(
            f"incomplete checkpoint{_named(path)}: expected the optimizer's state after "
            f"{checkpoint['global_step']:,} steps, got none; {RESUMED}"
        )


def check_memory(theirs: Any, ours: Any) -> None:
    """Raise ValueError when a run would continue in another memory mode than it was trained in.

    Args:
        theirs: The setting that a checkpoint was made with, a word or a mode with its settings.
        ours: That of the module which takes its weights.
    """
    trained, given = ({"mode": each} if isinstance(each, str) else dict(each) for each in (theirs, ours))
    for key in trained.keys() & given.keys():
        if trained[key] != given[key]:
            raise ValueError(
                f"the run was trained in another memory mode: expected model.memory.{key} {trained[key]}, got "
                f"{given[key]}; set it to {trained[key]}, or begin a new run with its weights: mem1 export --ckpt_path "
                "FILE --output DIR, then model.policy DIR"
            )


def _check(checkpoint: Mapping[str, Any], key: str, part: Part, path: str, otherwise: str) -> None:
    value: Any = checkpoint
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    fits, expected = part
    if not fits(value):
        got = "nothing" if value is None else f"{value!r:.60}"
        raise ValueError(
            f"incomplete checkpoint{_named(path)}: expected {key} to be {expected}, got {got}; {otherwise}"
        )


def _named(path: str) -> str:
    return f" '{path}'" if path else ""


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST


def _holds_optimizers(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(each, Mapping) and {"state", "param_groups"} <= each.keys() for each in value)


def _is_random_state(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_of_rank(each) for each in value)


def _of_rank(value: Any) -> bool:
    """Whether generators of the two kinds take it: tried on ones that nobody draws from."""
    try:
        version, words, gauss = value["python"]
        random.Random().setstate((version, tuple(words), gauss))
        torch.Generator().set_state(value["torch"].cpu())
        return all(isinstance(each, Tensor) for each in value.get("cuda", []))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError, OverflowError):
        return False


def _are_settings(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    lora, memory = value.get("lora"), value.get("memory")
    scale = 0.0 if lora is None else lora.get("alpha", 0.0) if isinstance(lora, Mapping) else None
    named = memory.get("mode") if isinstance(memory, Mapping) else memory
    return isinstance(scale, int | float) and isinstance(named, str)


_COUNT: Part = (_is_count, "a whole number from 0")
_TEXT: Part = (lambda value: isinstance(value, str), "a text")
_SETTINGS: Part = (_are_settings, "settings by name, lora and memory among them")
_STATES: Part = (lambda value: isinstance(value, Mapping), "states by name")
_OF_WEIGHTS: Mapping[str, Part] = {
    f"{ENTRY}.rl_step": _COUNT,
    f"{ENTRY}.base": _TEXT,
    f"{ENTRY}.policy": _TEXT,
    f"{ENTRY}.rng": (_is_random_state, "the random state of each rank"),
    "state_dict": (
        lambda value: isinstance(value, Mapping) and all(isinstance(each, Tensor) for each in value.values()),
        "weights by name",
    ),
}
_OF_RUNS: Mapping[str, Part] = {
    "optimizer_states": (_holds_optimizers, "the optimizer's state"),
    "lr_schedulers": (lambda value: isinstance(value, list), "a list"),
    "loops.fit_loop": _STATES,
    "callbacks": _STATES,
    "global_step": _COUNT,
    "epoch": _COUNT,
    "pytorch-lightning_version": _TEXT,
}
