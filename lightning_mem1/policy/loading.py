"""Where a policy comes from: the bundled one, a folder, or the hub. safetensors only, never pickle.

A folder may hold a LoRA adapter in place of a model (what `export` writes, or peft): its base is loaded and the adapter
is merged into the base's weights. The policy so made has no adapter of its own yet, and is its own reference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lightning_mem1.checks import check_choice
from lightning_mem1.policy.attention import register
from lightning_mem1.policy.quantization import check_quantization, play_as_it_trains, quantization_config

ASSETS = Path(__file__).parent / "assets"
BUNDLED = ASSETS / "policy"
# "bundled" reads the generated shop and encyclopedia, the others listings like the official WebShop's, long documents
BUNDLED_POLICIES = {
    "bundled": BUNDLED,
    "bundled_marketplace": ASSETS / "marketplace",
    "bundled_reading": ASSETS / "reading",
}
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DTYPES = ("float32", "bfloat16", "float16")


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
                "set model.policy"
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


def load_model(folder: str, dtype: str = "float32", quantization: str = "none") -> Any:
    """Load a causal LM with this package's attention; adapters are merged into it, in `dtype`.

    Raises:
        ValueError: unknown dtype or quantisation, an adapter on a base that is to be quantised, weights that cannot be
            read, a hub that cannot be reached, or an adapter that is no LoRA or does not fit its base.
    """
    check_choice("dtype", dtype, DTYPES, "model.compute.dtype")
    check_quantization(quantization)
    base, adapters = _base_and_adapters(folder)
    if adapters and quantization != "none":
        raise ValueError(
            f"cannot merge adapter '{folder}' into a quantised base: expected a whole model, got an adapter; export it "
            "with --merged first, or set model.compute.quantization none"
        )
    model = _load_base(base, dtype, quantization)
    play_as_it_trains(model)
    for adapter in adapters:
        model = _merged(model, adapter, base)
    return model


def _load_base(folder: str, dtype: str, quantization: str) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        given: dict[str, Any] = {
            "config": config,
            "dtype": getattr(torch, dtype),
            "use_safetensors": True,
            "trust_remote_code": False,  # left out, it would be asked for
            "quantization_config": quantization_config(quantization, dtype),
        }
        try:
            return _model_class(config).from_pretrained(folder, attn_implementation=register(), **given)
        except KeyError:  # a model that chooses among classes of its own
            return _model_class(config).from_pretrained(folder, attn_implementation="eager", **given)
    except Exception as error:  # transformers, safetensors and the hub each raise their own kinds
        raise ValueError(_explain(folder, error)) from error


def _model_class(config: Any) -> Any:
    """A causal LM's; that of a model of text and images where there is no other, which then reads text alone."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    causal = hasattr(config, "auto_map") or type(config) in AutoModelForCausalLM._model_mapping
    pictures = not causal and type(config) in AutoModelForImageTextToText._model_mapping
    return AutoModelForImageTextToText if pictures else AutoModelForCausalLM


def check_vocabulary(model: Any, tokenizer: Any, source: str) -> None:
    """Raise ValueError where the tokenizer has ids that the model has no embedding for."""
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
        return resolve(base)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"cannot load the base of adapter '{folder}': {error}, or repair '{file}'") from error


def _merged(model: Any, adapter: str, base: str) -> Any:
    """The model with an adapter in its weights."""
    from peft import PeftModel

    try:
        # the base runs with this package's attention; peft only puts layers around its linear ones
        adapted = PeftModel.from_pretrained(model, adapter)
        fill_adapter(adapted, "default", adapter)
        return adapted.merge_and_unload()
    except Exception as error:  # peft, safetensors and torch each raise their own kinds
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"adapter '{adapter}' does not fit its base '{base}': {reason}") from error


def fill_adapter(adapted: Any, name: str, folder: str) -> None:
    """Put an adapter's weights where their names say, after peft has; it leaves out those it would rename.

    Raises:
        ValueError: weights that belong nowhere, or layers that get none.
    """
    from safetensors.torch import load_file

    products = (".lora_A.", ".lora_B.")
    stored = load_file(Path(folder) / ADAPTER_WEIGHTS).items()
    weights = {_of_adapter(key, name): value for key, value in stored if any(part in key for part in products)}
    places = {key: p for key, p in adapted.named_parameters() if any(f"{part}{name}." in key for part in products)}
    if odd := sorted(weights.keys() ^ places.keys()):
        place = "layer without weights" if odd[0] in places else "weights without a layer"
        raise ValueError(f"expected weights for {len(places)} layers, got a {place}, {odd[0]}")
    with torch.no_grad():
        for key, parameter in places.items():
            parameter.copy_(weights[key])


def _of_adapter(key: str, name: str) -> str:
    """``...lora_A.weight`` of a file is ``...lora_A.name.weight`` in a model."""
    start, _, last = key.rpartition(".")
    return f"{start}.{name}.{last}"


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
