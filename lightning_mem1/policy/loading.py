"""Where a policy comes from: the bundled one, a folder, or the hub. safetensors only, never pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lightning_mem1.policy.attention import register

BUNDLED = Path(__file__).parent.parent / "assets" / "policy"
DTYPES = ("float32", "bfloat16", "float16")


def resolve(source: str) -> str:
    """Turn "bundled", a folder or a hub id into what transformers loads.

    Raises:
        FileNotFoundError: it looks like a folder and is none.
        ValueError: the folder holds no model.
    """
    if source == "bundled":
        return str(BUNDLED)
    folder = Path(source).expanduser()
    if not folder.exists():
        if source.count("/") != 1 or source.startswith((".", "/", "~")):
            raise FileNotFoundError(
                f"no such policy: expected 'bundled', a folder or a hub id like Qwen/Qwen2.5-0.5B, got '{source}'; "
                "set model.policy"
            )
        return source
    if not (folder / "config.json").is_file():
        raise ValueError(f"not a policy folder: expected config.json and *.safetensors in '{folder}'; set model.policy")
    return str(folder)


def load_model(folder: str, dtype: str = "float32") -> Any:
    """Load a causal LM with this package's attention.

    Raises:
        ValueError: unknown dtype, weights that cannot be read, a hub that cannot be reached, or a model whose layers
            use sliding windows (the segment table knows only full attention).
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype: expected one of {', '.join(DTYPES)}, got '{dtype}'; set model.dtype")
    try:
        config = AutoConfig.from_pretrained(folder)
        _check_attention(config, folder)
        return AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, dtype),
            attn_implementation=register(),
            use_safetensors=True,
        )
    except Exception as error:  # transformers, safetensors and the hub each raise their own kinds
        raise ValueError(_explain(folder, error)) from error


def load_tokenizer(folder: str) -> Any:
    """Load the tokenizer that belongs to a policy (errors as in `load_model`)."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        # AutoTokenizer goes by the model's type and would put Qwen2's own normaliser over a tokenizer made here
        kind = PreTrainedTokenizerFast if _is_plain_tokenizer(folder) else AutoTokenizer
        return kind.from_pretrained(folder)
    except Exception as error:
        raise ValueError(_explain(folder, error)) from error


def _is_plain_tokenizer(folder: str) -> bool:
    """True when the folder's tokenizer is all in tokenizer.json and belongs to no model's class."""
    file = Path(folder) / "tokenizer_config.json"
    kind = json.loads(file.read_text(encoding="utf-8")).get("tokenizer_class") if file.is_file() else None
    return kind in ("TokenizersBackend", "PreTrainedTokenizerFast")


def _check_attention(config: Any, folder: str) -> None:
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        raise ValueError(f"'{folder}' uses sliding-window attention: expected full attention in every layer")


def _explain(folder: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    if Path(folder).exists():
        return (
            f"cannot load policy from '{folder}': expected a complete config, tokenizer and safetensors, got: {reason}"
        )
    return (
        f"cannot load policy '{folder}' from the hub: expected a reachable hub or a cached copy, got: {reason}; "
        "check the name and the network, or set model.policy to a folder or 'bundled'"
    )
