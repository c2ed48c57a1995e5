"""Tiny random models of many families, and how far rollout, layouts and plain transformers are apart on each.

`measure` plays short episodes and scores them in three memory modes, with an adapter and with every weight trained.
`python tests/architectures.py` measures all families and prints the table of docs/reference/models.md.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers as T
from torch import Tensor

from lightning_mem1.context.contexts import contexts
from lightning_mem1.engine.factory import make_engine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.types import Trajectory
from tiny import WordEnv, task, tiny_tokenizer
from tiny_recurrent import BASE as RECURRENT_BASE
from tiny_recurrent import CONFIGS as RECURRENT
from tiny_recurrent import limit

MODES = ("mem1", "full", "summary")
LAYOUTS = ("tree", "rows")
WINDOW = 24  # tokens, of sliding windows and chunks: contexts have up to about 130
ORIGINAL = 50  # tokens up to which rotary frequencies do not depend on the length: some turns grow beyond it
TEMPERATURE = 0.8
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.1,
    "bos_token_id": 1,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
MLA = {
    "num_key_value_heads": 4,
    "q_lora_rank": 12,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 6,
    "v_head_dim": 5,
}
BOTH = ["sliding_attention", "full_attention"]
FACTORS = {"short_factor": [1.0] * 4, "long_factor": [1.0, 1.5, 2.0, 2.5]}


@dataclass(frozen=True)
class Family:
    """A tiny model.

    Attributes:
        config: Name of its config class in transformers, without ``Config``.
        about: What its layers have that plain attention has not.
        more: Arguments of the config, besides the shape.
        engine: Which engine plays it: local or transformers.
        packed: Whether `tree` runs as one packed row; otherwise its contexts are scored one a row.
        reference: Logits of a turn by plain transformers, see `whole` and others.
        whole: Arguments of the config of a model of text and images, whose text part `more` and the shape describe.
        tolerance: Largest gap, in nats.
    """

    config: str
    about: str = ""
    more: dict[str, Any] = field(default_factory=dict)
    engine: str = "local"
    packed: bool = True
    reference: str = "whole"
    whole: dict[str, Any] | None = None
    tolerance: float = 1e-5


def scaled(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


def rope_of(*types: str) -> dict[str, Any]:
    return {"rope_parameters": {each: {"rope_type": "default", "rope_theta": 1e4} for each in types}}


FAMILIES: dict[str, Family] = {
    "Qwen2": Family("Qwen2", "biases of queries and keys"),
    "Qwen2, yarn": Family("Qwen2", "yarn", scaled("yarn", factor=4.0, original_max_position_embeddings=64)),
    "Qwen2, windows": Family(
        "Qwen2",
        "sliding windows in some layers",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "Qwen2-MoE": Family(
        "Qwen2Moe", "experts, one shared", {**EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 24}
    ),
    "Qwen3": Family("Qwen3", "norms of queries and keys", {"head_dim": 8}),
    "Qwen3-MoE, windows": Family(
        "Qwen3Moe",
        "experts, sliding windows",
        {**EXPERTS, "num_experts": 4, "head_dim": 8, "use_sliding_window": True, "sliding_window": WINDOW},
    ),
    "Llama 3": Family(
        "Llama",
        "llama3 scaling",
        scaled(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
    ),
    "Llama, linear": Family(
        "Llama", "linear scaling, tied head", {**scaled("linear", factor=2.0), "tie_word_embeddings": True}
    ),
    "Llama, dynamic": Family(
        "Llama",
        "rotary frequencies of every length",
        {**scaled("dynamic", factor=4.0), "max_position_embeddings": ORIGINAL},
        reference="stepwise",
    ),
    "Llama 4": Family(
        "Llama4Text",
        "chunked attention, layers without rotary positions, experts",
        {
            "head_dim": 8,
            "attention_chunk_size": WINDOW,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "intermediate_size_mlp": 48,
            "no_rope_layers": [1, 0],
            "moe_layers": [1],
        },
    ),
    "Mistral": Family("Mistral", "sliding windows", {"sliding_window": WINDOW}),
    "Ministral 3": Family("Ministral3", "queries scaled by position", {"sliding_window": None, "head_dim": 8}),
    "Mixtral": Family("Mixtral", "experts", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "Gemma": Family("Gemma", "scaled embeddings", {"head_dim": 8}),
    "Gemma 2": Family(
        "Gemma2",
        "sliding windows, soft caps of scores and logits",
        {
            "head_dim": 8,
            "sliding_window": WINDOW,
            "layer_types": BOTH,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 2.0,
            "query_pre_attn_scalar": 8,
        },
    ),
    "Gemma 3": Family(
        "Gemma3Text",
        "sliding windows with other frequencies",
        {"head_dim": 8, "sliding_window": WINDOW, "layer_types": BOTH, "query_pre_attn_scalar": 8},
    ),
    "Gemma 3n": Family(
        "Gemma3nText",
        "layers that share keys and values, embeddings of each layer",
        {
            "num_hidden_layers": 4,
            "head_dim": 8,
            "sliding_window": WINDOW,
            "layer_types": BOTH * 2,
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 8,
            "laurel_rank": 4,
            "initializer_range": 0.3,
            "altup_num_inputs": 2,
            "activation_sparsity_pattern": [0.0] * 4,
        },
    ),
    "Gemma 4": Family(
        "Gemma4Text",
        "heads of other widths in full layers, sliding windows",
        {
            "head_dim": 8,
            "global_head_dim": 16,
            "initializer_range": 0.5,
            "sliding_window": WINDOW,
            "layer_types": BOTH,
            "hidden_size_per_layer_input": 8,
            "final_logit_softcapping": 5.0,
        },
    ),
    "Phi": Family("Phi", "partial rotary, dropout of residuals", {"resid_pdrop": 0.3, "attention_dropout": 0.3}),
    "Phi-3, windows": Family("Phi3", "sliding windows, fused projections", {"sliding_window": WINDOW}),
    "Phi-3, LongRoPE": Family(
        "Phi3",
        "other rotary frequencies beyond a length",
        {
            **scaled("longrope", original_max_position_embeddings=ORIGINAL, partial_rotary_factor=1.0, **FACTORS),
            "original_max_position_embeddings": ORIGINAL,
            "sliding_window": None,
        },
        reference="prefixes",
    ),
    "Phi-MoE": Family(
        "Phimoe",
        "experts chosen with noise in training",
        {"num_local_experts": 4, "sliding_window": None, "input_jitter_noise": 0.3},
    ),
    "SmolLM3": Family("SmolLM3", "layers without rotary positions", {"no_rope_layers": [1, 0]}),
    "OLMo 2": Family("Olmo2", "norms after layers"),
    "OLMo 3": Family("Olmo3", "sliding windows", {"sliding_window": WINDOW, "layer_types": BOTH}),
    "OLMoE": Family("Olmoe", "experts", {"num_experts": 4, "num_experts_per_tok": 2}),
    "Starcoder2": Family("Starcoder2", "layer norms, sliding windows", {"sliding_window": WINDOW}),
    "GLM-4": Family("Glm4", "partial rotary", {"head_dim": 8}),
    "GLM-4-MoE": Family(
        "Glm4Moe",
        "experts in groups",
        {**EXPERTS, "head_dim": 8, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    ),
    "Hunyuan": Family("HunYuanDenseV1", "norms of queries and keys after rotary", {"head_dim": 8}),
    "Ernie 4.5": Family("Ernie4_5", "interleaved rotary", {"head_dim": 8}),
    "Apertus": Family("Apertus", "xIELU"),
    "BitNet": Family("BitNet", "norms inside of attention"),
    "Helium": Family("Helium", "interleaved rotary", {"head_dim": 8}),
    "Seed-OSS": Family(
        "SeedOss",
        "dropout of attention and residuals",
        {"head_dim": 8, "attention_dropout": 0.3, "residual_dropout": 0.3},
    ),
    "Granite": Family(
        "Granite",
        "logits, embeddings, scores and residuals scaled",
        {
            "logits_scaling": 3.0,
            "embedding_multiplier": 2.0,
            "attention_multiplier": 0.3,
            "residual_multiplier": 0.5,
            "attention_dropout": 0.3,
        },
    ),
    "Granite-MoE": Family(
        "GraniteMoe",
        "experts, logits scaled",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "logits_scaling": 3.0},
    ),
    "Cohere": Family("Cohere", "logits scaled", {"logit_scale": 0.4}),
    "Cohere 2": Family(
        "Cohere2", "sliding windows, logits scaled", {"sliding_window": WINDOW, "layer_types": BOTH, "logit_scale": 0.4}
    ),
    "EXAONE 4": Family("Exaone4", "sliding windows", {"sliding_window": WINDOW, "layer_types": BOTH}),
    "gpt-oss": Family(
        "GptOss",
        "attention sinks, sliding windows, experts",
        {
            "head_dim": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": WINDOW,
            "layer_types": BOTH,
            **scaled("default"),
        },
    ),
    "nanochat": Family("NanoChat", "logits soft-capped"),
    "DeepSeek-V3": Family(
        "DeepseekV3",
        "latent attention: values of their own width, experts in groups",
        {
            **MLA,
            **EXPERTS,
            "n_routed_experts": 4,
            "n_group": 2,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "head_dim": 4,
        },
    ),
    "MiniCPM3": Family("MiniCPM3", "latent attention, logits scaled", {**MLA, "scale_emb": 2, "dim_model_base": 16}),
    "MiMo-V2": Family(
        "MiMoV2Flash",
        "heads of other numbers and widths in sliding layers, sinks",
        {
            **EXPERTS,
            "head_dim": 8,
            "v_head_dim": 6,
            "n_routed_experts": 4,
            "sliding_window": WINDOW,
            "layer_types": BOTH,
            "mlp_layer_types": ["dense", "sparse"],
        },
    ),
    "Laguna": Family(
        "Laguna",
        "as many heads as each layer wants, gated attention",
        {
            **EXPERTS,
            "head_dim": 8,
            "num_experts": 4,
            "shared_expert_intermediate_size": 24,
            "num_attention_heads_per_layer": [4, 2],
            "sliding_window": WINDOW,
            "layer_types": BOTH,
        },
    ),
    "StableLM": Family("StableLm", "hands no keywords to its attention"),
    "Nemotron": Family("Nemotron", "hands no keywords to its attention", {"head_dim": 8, "initializer_range": 0.07}),
    "GPT-2": Family("GPT2", "learnt positions", {"resid_pdrop": 0.3, "embd_pdrop": 0.3}),
    "GPT-NeoX": Family("GPTNeoX", "attention parallel to the MLP"),
    "GPT-BigCode": Family("GPTBigCode", "one head of keys, learnt positions"),
    "OPT": Family("OPT", "learnt positions", {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.3}),
    "DBRX": Family(
        "Dbrx",
        "clipped projections, experts",
        {
            "d_model": 32,
            "n_heads": 4,
            "n_layers": 2,
            "max_seq_len": 1024,
            "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 1.0},
            "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
        },
    ),
    "DiffLlama": Family("DiffLlama", "attends twice in a layer", engine="transformers"),
    "BLOOM": Family("Bloom", "ALiBi", engine="transformers", packed=False),
    "MPT": Family("Mpt", "ALiBi", {"d_model": 32, "n_heads": 4, "n_layers": 2}, engine="transformers", packed=False),
    "Falcon": Family("Falcon", "attention of its own", engine="transformers", packed=False),
    "GPT-Neo": Family(
        "GPTNeo",
        "attention of its own, windows",
        {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": WINDOW},
        engine="transformers",
        packed=False,
    ),
    "GPT-J": Family("GPTJ", "attention of its own", {"rotary_dim": 4}, engine="transformers", packed=False),
    "Doge": Family("Doge", "hides tokens by learnt masks", engine="transformers", packed=False),
    "Inkling": Family(
        "InklingText",
        "biases of relative positions",
        {
            "head_dim": 8,
            "swa_num_attention_heads": 4,
            "swa_num_key_value_heads": 2,
            "swa_head_dim": 8,
            "sliding_window_size": WINDOW,
            "d_rel": 4,
            "rel_extent": 32,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "n_shared_experts": 1,
        },
        engine="transformers",
        packed=False,
    ),
}
ROUTED = {**EXPERTS, "n_routed_experts": 4, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
WINDOWED = {"sliding_window": WINDOW, "layer_types": BOTH}
FAMILIES |= {
    "dots1": Family(
        "Dots1",
        "experts in groups, sliding windows",
        {**ROUTED, **WINDOWED, "n_shared_experts": 1, "head_dim": 8},
    ),
    "Ernie 4.5-MoE": Family(
        "Ernie4_5_Moe",
        "experts chosen with a bias, one shared",
        {
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_intermediate_size": 24,
            "moe_layer_start_index": 1,
            "moe_layer_end_index": 1,
            "moe_num_shared_experts": 1,
        },
    ),
    "Hunyuan-MoE": Family(
        "HunYuanMoEV1",
        "experts, norms of queries and keys after rotary",
        {"num_experts": 4, "moe_topk": 2, "moe_intermediate_size": 24, "head_dim": 8},
    ),
    "DeepSeek-V2": Family(
        "DeepseekV2",
        "latent attention, experts in groups",
        {**MLA, **ROUTED, "topk_method": "group_limited_greedy", "head_dim": 4},
    ),
    "Arcee": Family("Arcee", "squared ReLU"),
    "VaultGemma": Family("VaultGemma", "sliding windows", {**WINDOWED, "head_dim": 8, "query_pre_attn_scalar": 8}),
    "Ministral": Family("Ministral", "sliding windows", {**WINDOWED, "head_dim": 8}),
    "OLMo": Family("Olmo", "clipped projections", {"clip_qkv": 1.0}),
    "JetMoE": Family("JetMoe", "experts in attention too", {**LOCAL_EXPERTS, "kv_channels": 8}),
    "MiniMax": Family(
        "MiniMax",
        "lightning attention in some layers, experts",
        {**LOCAL_EXPERTS, "head_dim": 8, "layer_types": ["linear_attention", "full_attention"], "block_size": 16},
        engine="transformers",
        packed=False,
    ),
    "MiniMax-M2": Family("MiniMaxM2", "experts chosen with a bias", {**LOCAL_EXPERTS, "head_dim": 8}),
    "EXAONE-MoE": Family(
        "ExaoneMoe",
        "experts, sliding windows",
        {
            **EXPERTS,
            **WINDOWED,
            "num_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "mlp_layer_types": ["dense", "sparse"],
        },
    ),
    "FlexOLMo": Family("FlexOlmo", "experts", {"num_experts": 4, "num_experts_per_tok": 2}),
    "Cohere 2-MoE": Family(
        "Cohere2Moe", "experts, sliding windows", {**WINDOWED, "num_experts": 4, "num_experts_per_tok": 2}
    ),
    "GLM-4-MoE-lite": Family("Glm4MoeLite", "latent attention, experts in groups", {**MLA, **ROUTED, "n_group": 1}),
    "Solar-open": Family(
        "SolarOpen", "experts in groups, one shared", {**ROUTED, "n_shared_experts": 1, "head_dim": 8}
    ),
    "LongCat-Flash": Family(
        "LongcatFlash",
        "latent attention twice in a layer, experts that do nothing",
        {
            **MLA,
            "ffn_hidden_size": 48,
            "expert_ffn_hidden_size": 24,
            "moe_topk": 2,
            "n_routed_experts": 4,
            "zero_expert_num": 2,
            "num_layers": 2,
            "head_dim": 4,
        },
    ),
    "Granite-MoE, shared": Family(
        "GraniteMoeShared", "experts, one shared", {**LOCAL_EXPERTS, "shared_intermediate_size": 24}
    ),
    "Granite-SWA": Family("GraniteSWA", "sliding windows, scales", WINDOWED),
    "Granite-MoE-SWA": Family("GraniteMoeSWA", "experts, sliding windows", {**LOCAL_EXPERTS, **WINDOWED}),
    "Persimmon": Family("Persimmon", "norms of queries and keys, partial rotary"),
    "BioGPT": Family("BioGpt", "learnt positions"),
    "OpenAI GPT": Family(
        "OpenAIGPT",
        "learnt positions, attention of its own",
        {"n_embd": 32, "n_layer": 2, "n_head": 4},
        engine="transformers",
        packed=False,
    ),
    "CodeGen": Family(
        "CodeGen",
        "attention of its own",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
        engine="transformers",
        packed=False,
    ),
    "XGLM": Family(
        "XGLM",
        "attention of its own",
        {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4},
        engine="transformers",
        packed=False,
    ),
}
EYES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
QWEN_EYES = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
MROPE = scaled("default", mrope_section=[1, 1, 2])
FAMILIES |= {  # of text and images; only text is read
    "Gemma 3 with images": Family(
        "Gemma3",
        "sliding windows, a tower for images",
        {"head_dim": 8, "sliding_window": WINDOW, "layer_types": BOTH, "query_pre_attn_scalar": 8},
        whole={"vision_config": {**EYES, "image_size": 28, "patch_size": 14}, "mm_tokens_per_image": 4},
    ),
    "Mistral 3 with images": Family(
        "Mistral3",
        "a tower for images",
        {"model_type": "mistral", "sliding_window": WINDOW},
        whole={"vision_config": {**EYES, "model_type": "pixtral", "head_dim": 8}},
    ),
    "Qwen2.5-VL": Family(
        "Qwen2_5_VL", "positions of three dimensions, a tower for images", MROPE, whole={"vision_config": QWEN_EYES}
    ),
    "Qwen3-VL": Family(
        "Qwen3VL",
        "positions of three dimensions, a tower for images",
        {**MROPE, "head_dim": 8},
        whole={"vision_config": {**QWEN_EYES, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}},
    ),
}
STATES = {  # what a layer of `tiny_recurrent` keeps: (its name here, what it has)
    "qwen3_5": ("Qwen3.5", "gated delta rule in some layers"),
    "qwen3_5_moe": ("Qwen3.5-MoE", "gated delta rule, experts"),
    "qwen3_next": ("Qwen3-Next", "gated delta rule, experts"),
    "olmo_hybrid": ("OLMo hybrid", "gated delta rule"),
    "lfm2": ("LFM2", "short convolutions"),
    "lfm2_moe": ("LFM2-MoE", "short convolutions, experts"),
    "granite_hybrid": ("Granite hybrid", "Mamba 2"),
    "granite_moe_hybrid": ("Granite hybrid, experts", "Mamba 2, experts"),
    "bamba": ("Bamba", "Mamba 2"),
    "falcon_h1": ("Falcon-H1", "Mamba 2 parallel to attention"),
    "nemotron_h": ("Nemotron-H", "Mamba 2, experts"),
    "jamba": ("Jamba", "Mamba, experts"),
}
FAMILIES |= {
    name: Family(
        RECURRENT[key][0].removesuffix("Config"),
        about,
        {**RECURRENT_BASE, "initializer_range": SHAPE["initializer_range"], **RECURRENT[key][1]},
        tolerance=limit(key),
    )
    for key, (name, about) in STATES.items()
}
FAST = (
    "Qwen3.5",
    "LFM2",
    "Qwen2",
    "Llama, dynamic",
    "Llama 4",
    "Mistral",
    "Gemma 2",
    "Phi-3, LongRoPE",
    "Seed-OSS",
    "Granite",
    "gpt-oss",
    "DeepSeek-V3",
    "Laguna",
    "StableLM",
    "GPT-2",
    "DiffLlama",
    "BLOOM",
)  # one of each mechanism


@dataclass(frozen=True)
class Measured:
    """Largest gaps over all modes, with an adapter and with every weight trained.

    Attributes:
        plain: Of the rollout against plain transformers, in nats.
        layouts: Of each layout against the rollout, in nats.
        gradient: Of the layouts' gradients, in parts of the largest entry of a weight's.
        engine: Class of the engine that played.
        packed: Whether `tree` ran as one packed row.
        num_tokens: Action tokens compared.
        longest: Longest context with its turn, in tokens.
    """

    plain: float
    layouts: dict[str, float]
    gradient: float
    engine: str
    packed: bool
    num_tokens: int
    longest: int


def measure(name: str) -> Measured:
    """Play and score a family."""
    family, found = FAMILIES[name], []
    with tempfile.TemporaryDirectory() as folder:
        save(family, folder)
        plain = model_class(config_of(family)).from_pretrained(folder, attn_implementation="eager").eval()
        for lora in (LoraSettings(r=2), None):
            policy = Policy.load(folder, lora=lora)
            stir(policy)
            reference = with_adapter(plain, policy)
            found += [_measured(policy, reference, family, mode) for mode in MODES]
    return Measured(
        plain=max(each.plain for each in found),
        layouts={layout: max(each.layouts[layout] for each in found) for layout in LAYOUTS},
        gradient=max(each.gradient for each in found),
        engine=found[0].engine,
        packed=found[0].packed,
        num_tokens=sum(each.num_tokens for each in found),
        longest=max(each.longest for each in found),
    )


def config_of(family: Family) -> Any:
    kind = getattr(T, f"{family.config}Config")
    more = copy.deepcopy({"vocab_size": len(tiny_tokenizer()) + 5, **SHAPE, **family.more})
    if family.whole is None:
        return kind(**more)
    return kind(text_config=more, **copy.deepcopy(family.whole), initializer_range=SHAPE["initializer_range"])


def model_class(config: Any) -> Any:
    return (
        T.AutoModelForCausalLM
        if type(config) in T.AutoModelForCausalLM._model_mapping
        else T.AutoModelForImageTextToText
    )


def save(family: Family, folder: str) -> None:
    """Write a random model, norms and biases too, and its tokenizer."""
    torch.manual_seed(0)
    model = model_class(config_of(family)).from_config(config_of(family))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def stir(policy: Policy) -> None:
    """Let the adapter matter."""
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)


def with_adapter(plain: Any, policy: Policy) -> Any:
    """A copy of a plain model with a policy's adapter in its weights."""
    model = copy.deepcopy(plain)
    with torch.no_grad():
        for name, module in policy.causal_lm.named_modules():
            if "policy" in getattr(module, "lora_A", ()):
                owner = model.get_submodule(name.replace(".base_layer", ""))
                # adapters of experts are on parameters, others on the weights of linear layers
                weight = getattr(owner, getattr(module, "parameter_name", None) or "weight")
                weight += module.get_delta_weight("policy")
    return model


def _measured(policy: Policy, plain: Any, family: Family, mode: str) -> Measured:
    engine = make_engine(policy.eval(), EngineSettings(num_slots=2, max_context_tokens=256), lambda: 0, training=True)
    played = play(engine, policy, mode)
    policy.train()  # as an update finds it
    batches = {layout: collate(played, layout, mode) for layout in LAYOUTS}
    scored = {layout: policy.logprobs(batch, TEMPERATURE)[0] for layout, batch in batches.items()}
    told = batches["tree"].rollout_logprobs
    expected = plain_logprobs(plain, played, mode, REFERENCES[family.reference])
    lengths = [
        len(c) + len(turn.action_ids) for t in played for c, turn in zip(contexts(t, mode), t.turns, strict=True)
    ]
    return Measured(
        plain=float((told - expected).abs().max()),
        layouts={layout: float((each.detach() - told).abs().max()) for layout, each in scored.items()},
        gradient=gradient_gap(policy, *scored.values()),
        engine=type(engine).__name__,
        packed=not policy.architecture.own,
        num_tokens=len(told),
        longest=max(lengths),
    )


def play(engine: Any, policy: Policy, mode: str) -> list[Trajectory]:
    """Two groups of two episodes of three turns, in two slots: prompts are shared and slots are used again."""
    episodes = [Episode(task(i // 2), WordEnv(["red " * n for n in (5, 0, 9)]), i // 2, i) for i in range(4)]
    settings = RolloutSettings(max_new_tokens=7, prompt="brief", max_information_tokens=16, temperature=TEMPERATURE)
    with torch.no_grad():
        return collect(episodes, engine, policy.tokenizer, settings, mode)


def gradient_gap(policy: Policy, a: Tensor, b: Tensor) -> float:
    """Largest difference of the gradients of two ways to score, in parts of each weight's largest, if above 1."""
    weights = torch.sin(torch.arange(len(a)))  # unlike weights, so that no token's gradient can hide
    trained = [p for p in policy.parameters() if p.requires_grad]
    pairs = zip(
        *(torch.autograd.grad((each * weights).sum(), trained, allow_unused=True) for each in (a, b)), strict=True
    )
    gaps = [(x - y).abs().max() / max(1.0, float(y.abs().max())) for x, y in pairs if x is not None and y is not None]
    return float(max(gaps))


Reference = Callable[[Any, Sequence[int], Sequence[int]], Tensor]


def plain_logprobs(plain: Any, played: Sequence[Trajectory], mode: str, reference: Reference) -> Tensor:
    """Log-probabilities (N,) of all action tokens, each turn by itself."""
    found = []
    for trajectory in played:
        for context, turn in zip(contexts(trajectory, mode), trajectory.turns, strict=True):
            context = [*context, *turn.opening_ids] if not _opened(context, turn.opening_ids) else context
            with torch.no_grad():
                logps = torch.log_softmax(reference(plain, context, turn.action_ids).float() / TEMPERATURE, dim=-1)
            found.append(logps.gather(1, torch.tensor(turn.action_ids)[:, None])[:, 0])
    return torch.cat(found)


def _opened(context: Sequence[int], opening: Sequence[int]) -> bool:
    return not opening or list(context[-len(opening) :]) == list(opening)


def whole(plain: Any, context: Sequence[int], action: Sequence[int]) -> Tensor:
    """Logits (n, vocabulary) of a turn in one forward pass."""
    return plain(input_ids=torch.tensor([[*context, *action]]), use_cache=False).logits[0, len(context) - 1 : -1]


def prefixes(plain: Any, context: Sequence[int], action: Sequence[int]) -> Tensor:
    """The same, each token by a pass over what comes before it."""
    rows = [torch.tensor([[*context, *action[:n]]]) for n in range(len(action))]
    return torch.stack([plain(input_ids=row, use_cache=False).logits[0, -1] for row in rows])


def stepwise(plain: Any, context: Sequence[int], action: Sequence[int]) -> Tensor:
    """The same as generation does: the context first, then token by token with a cache."""
    plain(input_ids=torch.tensor([[3]]), use_cache=False)  # forgets the longest context
    found = plain(input_ids=torch.tensor([list(context)]), use_cache=True)
    logits = [found.logits[0, -1]]
    for token in action[:-1]:
        found = plain(input_ids=torch.tensor([[token]]), past_key_values=found.past_key_values, use_cache=True)
        logits.append(found.logits[0, -1])
    return torch.stack(logits)


REFERENCES: dict[str, Reference] = {"whole": whole, "prefixes": prefixes, "stepwise": stepwise}


def main(names: Sequence[str]) -> None:
    """Print the table's rows, one a family."""
    for name in names or FAMILIES:
        started = time.perf_counter()
        print(row(name, measure(name)), f"<!-- {time.perf_counter() - started:.1f} s -->", flush=True)


def row(name: str, found: Measured) -> str:
    engine = "local" if found.engine == "LocalEngine" else "transformers"
    layouts = "`tree`, `rows`" if found.packed else "`rows` (`tree` is unpacked)"
    gaps = [found.plain, *found.layouts.values(), found.gradient]
    return (
        f"| {name} | {FAMILIES[name].about} | {layouts} | {engine} | " + " | ".join(f"{gap:.0e}" for gap in gaps) + " |"
    )


if __name__ == "__main__":
    T.logging.set_verbosity_error()
    T.logging.disable_progress_bar()
    main(sys.argv[1:])
