"""Whether a model has all of its weights: none missing from its folder, none left over, none that is no number.

transformers fills what is missing with random weights and continues.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def check_complete(model: Any, info: Mapping[str, Any], source: str) -> None:
    """Raise ValueError unless every weight of a loaded model came from its files, and every layer in them is its own.

    Weights next to the model's own that look like none of its layers (a tower for images, heads for several tokens) are
    left out by design, and pass.

    Args:
        model: The model.
        info: What transformers says of the loading: ``missing_keys``, ``unexpected_keys`` and ``mismatched_keys``.
        source: Where it came from, for the error.
    """
    if missing := sorted(info["missing_keys"]):
        raise ValueError(
            f"weights are missing from '{source}': expected all {_count(model)} tensors of the model, got none for "
            f"{_listed(missing)}; use a folder with all of its safetensors"
        )
    if shapes := sorted(tuple(each) for each in info["mismatched_keys"]):
        name, stored, wanted = shapes[0]
        raise ValueError(
            f"weights of '{source}' do not fit its config.json: expected {name} of shape {tuple(wanted)}, got "
            f"{tuple(stored)}{_more(shapes)}; use the config that belongs to the weights"
        )
    known = {_without_numbers(name) for name, _ in model.named_parameters(remove_duplicate=False)}
    if extra := sorted(name for name in info["unexpected_keys"] if _without_numbers(name) in known):
        raise ValueError(
            f"weights of '{source}' do not fit its config.json: expected no layers but the model's, got also "
            f"{_listed(extra)}; use the config that belongs to the weights"
        )


def check_finite(weights: Iterable[tuple[str, Tensor]], source: str) -> None:
    """Raise ValueError, with its name, for a weight that holds nan or an infinite number.

    Args:
        weights: Names and tensors; those of whole numbers (4 bits) pass.
        source: Where they came from, for the error.
    """
    bad = [name for name, weight in weights if _is_bad(weight)]
    if bad:
        raise ValueError(
            f"weights of '{source}' are no numbers: expected finite ones, got nan or infinity in {_listed(bad)}; use "
            "a copy from before they broke, or model.compute.dtype float32 if they outgrew float16"
        )


@contextmanager
def without_report() -> Iterator[None]:
    """Keep transformers from printing its table of missing weights, which `check_complete` says in one line."""
    logger = logging.getLogger("transformers.modeling_utils")

    def is_other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _is_bad(weight: Tensor) -> bool:
    if not weight.is_floating_point() or not weight.numel() or weight.is_meta:
        return False
    least, most = torch.aminmax(weight.detach())  # nan is both, and no second tensor is made
    return not bool(torch.isfinite(least) & torch.isfinite(most))


def _without_numbers(name: str) -> str:
    """``model.layers.3.mlp.weight`` and ``model.layers.4.mlp.weight`` are the same of two layers."""
    return re.sub(r"\.\d+(?=\.)", ".#", name)


def _count(model: Any) -> int:
    return sum(1 for _ in model.parameters())


def _listed(names: Collection[str]) -> str:
    """The first two of them, and how many more there are."""
    return ", ".join(list(names)[:2]) + _more(names, 2)


def _more(names: Collection[Any], shown: int = 1) -> str:
    return f" and {len(names) - shown} more" if len(names) > shown else ""
