"""How much memory a training will take, reported before anything large is loaded.

Arithmetic on the model's config, not a measurement: good to about a fifth, meant to distinguish 21 GiB from 80.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from lightning_mem1.training.credit.algorithms import find_algorithm

GIB = 2**30
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
NF4_BYTES = 0.5 + 0.127 / 8  # a weight in 4 bits, and its share of the doubly quantised constants (arXiv 2305.14314)
STATE_BYTES = {"adamw": 8, "adamw_8bit": 2, "paged_adamw": 8, "paged_adamw_8bit": 2}  # two moments per trained weight
LOGITS_CHUNK = 1024  # tokens whose logits exist at once, see `policy.logprobs`
SAVED_PER_LAYER = 8  # activations of the model's width that a layer keeps for its backward pass, the MLP's aside


@dataclass(frozen=True)
class Shape:
    """What matters of a causal LM: sizes in numbers of weights or channels.

    Attributes:
        width, inner, vocabulary, layers: Hidden size, MLP size, tokens, decoder layers.
        kv_width: Key-value heads times the size of a head.
        query_width: Query heads times the size of a head.
        tied: Whether the head is the embedding.
        kv_layers: Layers that keep keys and values; None for all of them.
    """

    width: int
    inner: int
    vocabulary: int
    layers: int
    kv_width: int
    query_width: int
    tied: bool
    kv_layers: int | None = None

    @classmethod
    def of(cls, config: Any) -> Shape:
        """Read a transformers config; of a model of text and images, the part for text."""
        config = config.get_text_config() if hasattr(config, "get_text_config") else config
        kinds = getattr(config, "layer_types", None) or ["attention"] * config.num_hidden_layers
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            width=config.hidden_size,
            inner=config.intermediate_size,
            vocabulary=config.vocab_size,
            layers=config.num_hidden_layers,
            kv_width=config.num_key_value_heads * size,
            query_width=config.num_attention_heads * size,
            tied=bool(config.tie_word_embeddings),
            kv_layers=sum("attention" in kind and "linear" not in kind for kind in kinds),
        )

    @property
    def linear(self) -> list[tuple[int, int]]:
        """Inputs and outputs of a layer's linear maps: q, k, v, o, gate, up, down."""
        attention = [(self.width, self.query_width), *[(self.width, self.kv_width)] * 2, (self.query_width, self.width)]
        return [*attention, *[(self.width, self.inner)] * 2, (self.inner, self.width)]

    @property
    def linear_weights(self) -> int:
        """Weights of all layers' linear maps."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear)

    @property
    def embedding_weights(self) -> int:
        """Weights of the embedding and, where it is another matrix, of the head."""
        return self.vocabulary * self.width * (1 if self.tied else 2)


@dataclass(frozen=True)
class Estimate:
    """Bytes by what they are for."""

    weights: float
    trained: float
    activations: float
    engine: float

    @property
    def gib(self) -> float:
        """All of it, in GiB."""
        return sum(getattr(self, field.name) for field in fields(self)) / GIB

    def line(self, available_gib: float) -> str:
        """One line, e.g. "needs about 21 GiB, you have 16: weights 5.5, ..."; what to lower if it is too much."""
        parts = ", ".join(f"{field.name} {getattr(self, field.name) / GIB:.1f}" for field in fields(self))
        needed = f"needs about {self.gib:.0f} GiB, you have {available_gib:.0f}: {parts}"
        if self.gib <= available_gib:
            return needed
        return (
            f"{needed}; lower model.engine.num_slots or max_context_tokens, model.max_tokens_per_microbatch, or set "
            "model.compute.quantization nf4, model.compute.gradient_checkpointing true"
        )


def memory_line(settings: Mapping[str, Any], on_cpu: bool, num_shards: int = 1) -> str | None:
    """What to say before loading; None below a GiB that is there, and for a policy whose config cannot be read yet.

    Args:
        settings: `Mem1Module`'s, nested as in a config.
        on_cpu: Whether the memory of the machine counts, or that of the GPU.
        num_shards: As in `estimate`.
    """
    from transformers import AutoConfig

    from lightning_mem1.policy.loading import resolve

    try:
        config = AutoConfig.from_pretrained(resolve(settings["policy"]), trust_remote_code=False)
        available = _available_bytes(on_cpu)
        found = estimate(Shape.of(config), settings, num_shards, available)
    except Exception:  # whatever is wrong with the policy or a setting is said by those who need it
        return None
    available_gib = available / GIB
    return found.line(available_gib) if found.gib >= 1 or found.gib > available_gib else None


def _available_bytes(on_cpu: bool) -> float:
    if not on_cpu:
        return float(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return float("inf")
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def estimate(shape: Shape, settings: Mapping[str, Any], num_shards: int = 1, device_bytes: float = 0.0) -> Estimate:
    """What a training takes on one device.

    Args:
        shape: Of the base.
        settings: `Mem1Module`'s, nested as in a config: lora, algorithm, optim, compute, max_tokens_per_microbatch,
            engine.
        num_shards: Devices that share the base's layers among themselves; in full training all weights, gradients and
            moments.
        device_bytes: Of the device, which vLLM takes a share of.

    Returns:
        Bytes. An adapter is counted as if on every linear map, in float32, with its gradient and moments; a critic is
        another one (a base of the critic's own is not counted). A base that is shared out is whole on every device
        while episodes are played there, and only then: activations take the place of the other devices' shares. With
        servers or vLLM it is never whole here. vLLM that sleeps while weights are updated shares its room with
        activations.
    """
    compute, moments = settings["compute"], STATE_BYTES[settings["optim"]["name"]]
    each = BYTES[compute["dtype"]]
    lora, tokens = settings["lora"], settings["max_tokens_per_microbatch"]
    layers = shape.linear_weights * (NF4_BYTES if compute["quantization"] == "nf4" else each)
    if lora:
        adapter = shape.layers * lora["r"] * sum(inputs + outputs for inputs, outputs in shape.linear)
        trained = adapter * (2 if find_algorithm(settings["algorithm"]).critic else 1) * (4 + 4 + moments)
    else:  # the weights themselves train: gradients and moments in their own precision
        trained = (shape.linear_weights + shape.embedding_weights) * (each + moments)
    one_layer = tokens * (SAVED_PER_LAYER * shape.width + 4 * shape.inner) * each
    kept = tokens * shape.width * each * shape.layers  # what gradient checkpointing keeps: each layer's input
    logits = min(tokens, LOGITS_CHUNK) * shape.vocabulary * 4.0 * 3
    activations = (kept + one_layer if compute["gradient_checkpointing"] else one_layer * shape.layers) + logits
    embeddings = shape.embedding_weights * each
    held, away = _held(layers, embeddings, 2 / shape.layers, num_shards, lora is not None, _generates(settings))
    if num_shards > 1 and not lora:
        trained /= num_shards
    activations = max(activations - away, 0.0)
    return Estimate(
        weights=held,
        trained=float(trained),
        activations=activations,
        engine=_engine(shape, settings, num_shards, each, activations, device_bytes),
    )


def _held(
    layers: float, embeddings: float, gathered: float, num_shards: int, adapter: bool, generates: bool
) -> tuple[float, float]:
    """Bytes of weights on one device at most, and how many of them are not there during an update.

    Args:
        layers, embeddings: Bytes of all layers, and of what is outside of them.
        gathered: Share of the layers that is whole at once during an update.
        num_shards: Devices that have a part each.
        adapter: Whether the layers alone are shared out.
        generates: Whether everything is whole while episodes are played.
    """
    if num_shards == 1:
        return layers + embeddings, 0.0
    if adapter:
        here = layers * (1 / num_shards + gathered) + embeddings
        return (layers + embeddings, layers + embeddings - here) if generates else (here, 0.0)
    here = (layers + embeddings) / num_shards + layers * gathered + embeddings
    whole = (layers + embeddings) * (1 + 1 / num_shards)  # next to each device's own part
    return (whole, whole - here) if generates and whole > here else (here, 0.0)


def _generates(settings: Mapping[str, Any]) -> bool:
    return settings["engine"].get("kind", "local") in ("local", "transformers")


def _engine(
    shape: Shape,
    settings: Mapping[str, Any],
    num_shards: int,
    each: float,
    activations: float,
    device_bytes: float,
) -> float:
    """Bytes of what generates turns, on the device that trains."""
    engine = settings["engine"]
    if engine.get("kind") == "vllm":
        share = engine["vllm"]["gpu_memory_utilization"] * device_bytes
        return max(share - activations, 0.0) if engine["vllm"].get("sleep") else share
    if not _generates(settings):
        return 0.0
    kv_layers = shape.layers if shape.kv_layers is None else shape.kv_layers
    pool = engine["num_slots"] * engine["max_context_tokens"] * 2 * kv_layers * shape.kv_width * each
    return float(pool) + (shape.linear_weights * each if _merges(settings, num_shards) else 0.0)


def _merges(settings: Mapping[str, Any], num_shards: int) -> bool:
    """Whether the engine has weights of its own, with the adapter in them; counted as if for every linear map."""
    compute = settings["compute"]
    if not settings["lora"] or compute["quantization"] != "none" or num_shards > 1:
        return False
    chosen = settings["engine"].get("merge_lora")
    return compute["dtype"] == "float32" if chosen is None else bool(chosen)
