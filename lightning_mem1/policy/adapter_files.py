"""LoRA adapters in folders, as peft and `export` write them: every tensor in one acts, or the folder is refused."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_mem1.policy.completeness import check_finite
from lightning_mem1.policy.merging import merge

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PRODUCTS = (".lora_A.", ".lora_B.")
MAX_LOST = 0.01  # share of what an adapter adds that rounding may take without a word
LOG = logging.getLogger(__name__)


def with_adapter(model: Any, adapter: str, base: str) -> Any:
    """The model with an adapter in its weights; a line says when rounding loses some of what it adds.

    Args:
        model: A causal LM.
        adapter: The adapter's folder.
        base: Where the model came from, for the error.

    Raises:
        ValueError: the adapter does not fit the model, lacks weights, has others, or holds what is no number.
    """
    from peft import PeftModel

    try:
        with without_warnings():
            # the base runs with this package's attention; peft only puts layers around its linear ones
            adapted = PeftModel.from_pretrained(model, adapter)
        fill_adapter(adapted, "default", adapter)
        merged, lost = merge(adapted)
    except Exception as error:  # peft, safetensors and torch each raise their own kinds
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"adapter '{adapter}' does not fit its base '{base}': {reason}") from error
    if lost > MAX_LOST:
        LOG.warning("%s", lost_line(f"adapter '{adapter}'", lost, merged.dtype, "set model.compute.dtype float32"))
    return merged


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keep peft from warning of what this package refuses in a line of its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*(missing adapter keys|tied layer is part of the adapter)")
        yield


def lost_line(what: str, lost: float, dtype: torch.dtype, remedy: str) -> str:
    """``adapter 'x': 40% of what it adds is lost to rounding in bfloat16; set model.compute.dtype float32``."""
    return f"{what}: {lost:.0%} of what it adds is lost to rounding in {str(dtype).removeprefix('torch.')}; {remedy}"


def fill_adapter(adapted: Any, name: str, folder: str) -> None:
    """Put an adapter's weights where their names say, after peft has; it leaves out those it would rename.

    Args:
        adapted: The model that peft has loaded the adapter into.
        name: What the adapter is called there.
        folder: Its folder.

    Raises:
        ValueError: weights that belong nowhere or are no numbers, or layers that get none.
    """
    from safetensors.torch import load_file

    stored = load_file(Path(folder) / ADAPTER_WEIGHTS)
    check_finite(stored.items(), folder)
    weights = {_of_adapter(key, name): value for key, value in stored.items() if _is_product(key)}
    places = {key: p for key, p in adapted.named_parameters() if any(f"{part}{name}." in key for part in PRODUCTS)}
    if odd := sorted(weights.keys() ^ places.keys()):
        place = "a layer without weights" if odd[0] in places else "weights without a layer"
        raise ValueError(f"expected weights for {len(places)} layers, got {len(weights)} and {place}, {odd[0]}")
    _check_others(adapted, name, {key: value for key, value in stored.items() if not _is_product(key)})
    with torch.no_grad():
        for key, parameter in places.items():
            parameter.copy_(weights[key])


def _check_others(adapted: Any, name: str, stored: dict[str, Tensor]) -> None:
    """Raise ValueError unless what else an adapter holds, of embeddings or whole modules, is where it acts."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(adapted, adapter_name=name, save_embedding_layers=False)
    wanted = {key for key in state if not _is_product(key)}
    own = adapted.state_dict()
    whole = {key for key, value in stored.items() if key in own and torch.equal(own[key].to(value), value)}
    if odd := sorted(wanted - stored.keys()):
        raise ValueError(f"expected weights for all that is adapted, got none for {odd[0]}; save the adapter again")
    if odd := sorted(stored.keys() - wanted - whole):
        raise ValueError(f"expected weights of its base's layers, got others, {odd[0]}; use the base it was trained on")


def _is_product(key: str) -> bool:
    return any(part in key for part in PRODUCTS)


def _of_adapter(key: str, name: str) -> str:
    """``...lora_A.weight`` of a file is ``...lora_A.name.weight`` in a model."""
    start, _, last = key.rpartition(".")
    return f"{start}.{name}.{last}"
