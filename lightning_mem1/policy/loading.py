"""Where a policy comes from: the bundled one, a folder, or the hub. safetensors only, never pickle.

A folder may hold a LoRA adapter in place of a model (what `export` writes, or peft): its base is loaded and the adapter
is merged into the base's weights. The policy so made has no adapter of its own yet, and is its own reference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lightning_mem1.checks import DTYPES, check_choice
from lightning_mem1.policy.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, with_adapter
from lightning_mem1.policy.attention import register
from lightning_mem1.policy.completeness import check_complete, check_finite, without_report
from lightning_mem1.policy.quantization import check_quantization, play_as_it_trains, quantization_config

ASSETS = Path(__file__).parent / "assets"
BUNDLED = ASSETS / "policy"
# "bundled" reads the generated shop and encyclopedia, the others listings like the official WebShop's, long documents
BUNDLED_POLICIES = {
    "bundled": BUNDLED,
    "bundled_marketplace": ASSETS / "marketplace",
    "bundled_reading": ASSETS / "reading",
}


def resolve(source: str) -> str:
    """Turn a name of `BUNDLED_POLICIES`, a folder or a hub id into what transformers loads.

    Raises:
        FileNotFoundError: it looks like a folder and is none.
        ValueError: the folder holds neither a model nor an adapter.
    """
    if source in BUNDLED_POLICIES:
        return str(BUNDLED_POLICIES[source])
    folder = Path(source).expanduser()
    if not folder.exists():
        if source.count("/") != 1 or source.startswith((".", "/", "~")):
            raise FileNotFoundError(
                f"no such policy: expected 'bundled', a folder or a hub id like Qwen/Qwen2.5-0.5B, got '{source}'; "
                "set model.policy, or make that folder with mem1 warmstart"
            )
        return source
    if not any((folder / name).is_file() for name in ("config.json", ADAPTER_CONFIG)):
        raise ValueError(
            f"not a policy folder: expected config.json and *.safetensors in '{folder}', or {ADAPTER_CONFIG} and "
            f"{ADAPTER_WEIGHTS}; set model.policy"
        )
    return str(folder)


def name_of_base(source: str) -> str:
    """How an adapter names its base: a bundled one as everywhere, a folder by its whole path, a hub id as it is."""
    if source in BUNDLED_POLICIES or not Path(source).expanduser().exists():
        return source
    folder = Path(source).expanduser().resolve()
    return next((name for name, path in BUNDLED_POLICIES.items() if path.resolve() == folder), str(folder))


def path_of_base(source: str) -> str:
    """What a saved adapter names as its base, for peft to find it: the whole path of a folder, or a hub id."""
    name = name_of_base(source)
    return str(BUNDLED_POLICIES.get(name, name))


def load_model(folder: str, dtype: str = "float32", quantization: str = "none") -> Any:
    """Load a causal LM with this package's attention; adapters are merged into it in float32, then rounded to `dtype`.

    Raises:
        ValueError: unknown dtype or quantisation, an adapter on a base that is to be quantised, weights that cannot be
            read, are missing, are no numbers or fit another config, a hub that cannot be reached, or an adapter that is
            no LoRA or does not fit its base.
    """
    check_choice("dtype", dtype, DTYPES, "model.compute.dtype")
    check_quantization(quantization)
    base, adapters = _base_and_adapters(folder)
    if adapters and quantization != "none":
        raise ValueError(
            f"cannot merge adapter '{folder}' into a quantised base: expected a whole model, got an adapter; export it "
            "with --merged first, or set model.compute.quantization none"
        )
    model, info = _load_base(base, dtype, quantization)
    check_complete(model, info, base)
    check_finite(model.named_parameters(), base)
    play_as_it_trains(model)
    for adapter in adapters:
        model = with_adapter(model, adapter, base)
    return model


def _load_base(folder: str, dtype: str, quantization: str) -> tuple[Any, dict[str, Any]]:
    """The model, and what transformers says of its weights."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        given: dict[str, Any] = {
            "config": config,
            "dtype": getattr(torch, dtype),
            "use_safetensors": True,
            "trust_remote_code": False,  # left out, it would be asked for
            "quantization_config": quantization_config(quantization, dtype),
            "output_loading_info": True,
            "ignore_mismatched_sizes": True,  # they are in the info, and refused by name
        }
        with without_report():
            try:
                found = _model_class(config).from_pretrained(folder, attn_implementation=register(), **given)
            except KeyError:  # a model that chooses among classes of its own
                found = _model_class(config).from_pretrained(folder, attn_implementation="eager", **given)
        return found
    except Exception as error:  # transformers, safetensors and the hub each raise their own kinds
        raise ValueError(_explain(folder, error)) from error


def _model_class(config: Any) -> Any:
    """A causal LM's; that of a model of text and images where there is no other, which then reads text alone."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    causal = hasattr(config, "auto_map") or type(config) in AutoModelForCausalLM._model_mapping
    pictures = not causal and type(config) in AutoModelForImageTextToText._model_mapping
    return AutoModelForImageTextToText if pictures else AutoModelForCausalLM


def check_vocabulary(model: Any, tokenizer: Any, source: str) -> None:
    """Raise ValueError where the tokenizer knows no words, or has ids that the model has no embedding for.

    Without its files transformers makes a tokenizer of special tokens alone.
    """
    if not set(tokenizer.encode("a b", add_special_tokens=False)) - {tokenizer.unk_token_id}:
        raise ValueError(
            f"the tokenizer of '{source}' knows no words: expected tokenizer.json in the folder, got a vocabulary of "
            f"{len(tokenizer)} that reads no letters; set model.policy to a folder with its tokenizer"
        )
    rows, needed = model.get_input_embeddings().weight.shape[0], len(tokenizer)
    if rows < needed:
        raise ValueError(
            f"the tokenizer of '{source}' does not fit its model: expected at least {needed} embeddings, one for each "
            f"id, got {rows}; resize the model's embeddings, or set model.policy to a folder with its own tokenizer"
        )


def load_tokenizer(folder: str) -> Any:
    """Load the tokenizer that belongs to a policy, an adapter's from its base (errors as in `load_model`)."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = _base_and_adapters(folder)[0]
    try:
        # AutoTokenizer goes by the model's type and would put Qwen2's own normaliser over a tokenizer made here
        kind = PreTrainedTokenizerFast if is_plain_tokenizer(folder) else AutoTokenizer
        return kind.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise ValueError(_explain(folder, error)) from error


def _base_and_adapters(folder: str) -> tuple[str, list[str]]:
    """The folder or hub id of the base, and the adapters on it, the one next to the base first."""
    adapters: list[str] = []
    while (Path(folder) / ADAPTER_CONFIG).is_file() and not (Path(folder) / "config.json").is_file():
        if folder in adapters:
            raise ValueError(f"adapter '{folder}' is its own base: repair base_model_name_or_path of {ADAPTER_CONFIG}")
        adapters.insert(0, folder)
        folder = _named_base(folder)
    return folder, adapters


def _named_base(folder: str) -> str:
    """The base that an adapter's config names, resolved."""
    file = Path(folder) / ADAPTER_CONFIG
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        kind, base = content.get("peft_type"), content.get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"corrupt adapter: expected JSON in '{file}'; write it again") from error
    if kind != "LORA" or not isinstance(base, str):
        raise ValueError(f"cannot use adapter '{folder}': expected LORA on a named base, got {kind} on {base!r}")
    if not (Path(folder) / ADAPTER_WEIGHTS).is_file():
        raise ValueError(f"cannot use adapter '{folder}': expected {ADAPTER_WEIGHTS}, got none; export it again")
    try:
        return resolve(_base_here(base, Path(folder)))
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"cannot load the base of adapter '{folder}': {error}, or repair '{file}'") from error


def _base_here(base: str, adapter: Path) -> str:
    """A base as an adapter names it, found on this machine.

    A relative path may be meant from the adapter's folder. A bundled policy lies elsewhere on every machine.
    """
    if not Path(base).is_absolute():
        return str(adapter / base) if not Path(base).exists() and (adapter / base).is_dir() else base
    tails = {path.parts[-4:]: name for name, path in BUNDLED_POLICIES.items()}  # lightning_mem1/policy/assets/...
    return base if Path(base).exists() else tails.get(Path(base).parts[-4:], base)


def is_plain_tokenizer(folder: str) -> bool:
    """True when the folder's tokenizer is all in tokenizer.json and belongs to no model's class."""
    file = Path(folder) / "tokenizer_config.json"
    kind = json.loads(file.read_text(encoding="utf-8")).get("tokenizer_class") if file.is_file() else None
    return kind in ("TokenizersBackend", "PreTrainedTokenizerFast")


def _explain(folder: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    if "trust_remote_code" in str(error):
        return (
            f"policy '{folder}' needs code of its own: expected an architecture that transformers knows, got one whose "
            "code is in its folder, which is never run; use another model"
        )
    if Path(folder).exists():
        return (
            f"cannot load policy from '{folder}': expected a complete config, tokenizer and safetensors, got: {reason}"
        )
    return (
        f"cannot load policy '{folder}' from the hub: expected a reachable hub or a cached copy, got: {reason}; "
        "check the name and the network, or set model.policy to a folder or 'bundled'"
    )
