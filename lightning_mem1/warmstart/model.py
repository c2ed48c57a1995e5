"""The small model that a warm start begins with, and the folder that it ends in."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_mem1.io.disk_room import room_for
from lightning_mem1.policy.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lightning_mem1.policy.loading import BUNDLED_POLICIES, load_tokenizer
from lightning_mem1.policy.merged import Merged
from lightning_mem1.policy.policy import Policy
from lightning_mem1.warmstart.demonstrations import tokenizer_texts
from lightning_mem1.warmstart.induction import start_with_induction
from lightning_mem1.warmstart.settings import Architecture, WarmStart


def make_tokenizer(config: WarmStart, own_texts: Sequence[str] = ()) -> Any:
    """The tokenizer of a folder or of a bundled policy, or one trained on generated catalogues and expert turns.

    Args:
        config: The warm start.
        own_texts: Of one's own task: it is trained on these then, and keeps capital letters.
    """
    if config.tokenizer:
        return load_tokenizer(str(BUNDLED_POLICIES.get(config.tokenizer, config.tokenizer)))
    from lightning_mem1.warmstart.tokenizer import BLOCKS, train_tokenizer, words_before_brackets

    if own_texts:
        tags = config.rollout.tags
        blocks = list(dict.fromkeys([*BLOCKS, tags.internal_state, tags.information, *tags.names]))
        calls = words_before_brackets(own_texts)
        return train_tokenizer(own_texts, config.model.vocab_size, blocks=blocks, calls=calls, lowercase=False)
    return train_tokenizer(tokenizer_texts(config), config.model.vocab_size)


def make_model(architecture: Architecture, vocab_size: int) -> Any:
    """A small Qwen2 with random weights and tied embeddings."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from lightning_mem1.policy.attention import register

    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=architecture.hidden_size,
        intermediate_size=architecture.intermediate_size,
        num_hidden_layers=architecture.num_layers,
        num_attention_heads=architecture.num_heads,
        num_key_value_heads=architecture.num_kv_heads,
        max_position_embeddings=architecture.max_positions,
        initializer_range=architecture.init_std,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": architecture.rope_theta},
    )
    config._attn_implementation = register()
    model = Qwen2ForCausalLM(config)
    if architecture.induction_start:
        start_with_induction(model)
    return model


def save(policy: Policy, folder: str, merged: bool = True) -> None:
    """Write weights (as float16, a tied head once) and tokenizer, an adapter merged in; or the adapter alone."""
    if not merged:
        _save_adapter(policy, Path(folder))
        return
    model = Merged(policy.causal_lm).model
    once = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    half = {name: tensor.half() for name, tensor in model.state_dict().items() if name not in once}
    with room_for(folder):
        model.save_pretrained(folder, state_dict=half, safe_serialization=True)
        policy.tokenizer.save_pretrained(folder)


def _save_adapter(policy: Policy, folder: Path) -> None:
    """Write the adapter next to its card; peft would put it into a folder of its name, with a card of its own."""
    with tempfile.TemporaryDirectory() as written, room_for(str(folder)):
        policy.save_adapter(written)
        folder.mkdir(parents=True, exist_ok=True)
        for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            shutil.copyfile(Path(written, name), folder / name)
