"""What plain transformers says: log-probabilities by the untouched model with eager attention, context by context."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_mem1.policy.backbone import text_config
from lightning_mem1.policy.inspection import untouched
from lightning_mem1.policy.policy import Policy
from lightning_mem1.policy.rotary import LengthRotary, forget_lengths, length_rule

WINDOWS = ("sliding_window", "attention_chunk_size")  # in a config, what masks are drawn from


def plain_logprobs(policy: Policy, context: Sequence[int], action: Sequence[int], temperature: float = 1.0) -> Tensor:
    """Log-probabilities (n,) in nats of the tokens of a turn, float32 on the CPU.

    Rotary frequencies that depend on the length are those of generation, see `policy.rotary`.
    """
    model, rule = policy.causal_lm, policy.architecture.length
    ids = torch.tensor([[*context, *action]], device=policy.device)
    with untouched(model), policy.computing():
        forget_lengths(model)
        if rule is not None and not rule.two_sets:
            logits = _step_by_step(model, ids, len(context))
        else:
            logits = model(input_ids=ids, use_cache=False).logits[0, len(context) - 1 : -1]
            if rule is not None and len(context) <= rule.original < ids.shape[1]:
                short = model(input_ids=ids[:, : rule.original], use_cache=False).logits[0, len(context) - 1 :]
                logits = torch.cat([short, logits[len(short) :]])
        forget_lengths(model)
    logps = torch.log_softmax(logits.float() / temperature, dim=-1)
    return logps.gather(1, ids[0, len(context) :, None])[:, 0].cpu()


def _step_by_step(model: Any, ids: Tensor, start: int) -> Tensor:
    """Logits (n, vocabulary) of the tokens from `start` on, with the model's cache."""
    found = model(input_ids=ids[:, :start], use_cache=True)
    logits = [found.logits[0, -1]]
    for place in range(start, ids.shape[1] - 1):
        given = {"past_key_values": found.past_key_values, "use_cache": True}
        found = model(input_ids=ids[:, place : place + 1], **given)
        logits.append(found.logits[0, -1])
    return torch.stack(logits)


@contextmanager
def shrunk(policy: Policy, window: int, length: int) -> Iterator[None]:
    """Inside, a few tokens show what otherwise takes thousands. The policy's layers are inspected in it and after it.

    Args:
        policy: Changes for the time.
        window: Tokens of windows and chunks.
        length: Tokens of context beyond which rotary frequencies change.
    """
    model, known = policy.causal_lm, policy.architecture
    changed: list[tuple[Any, str, Any]] = []

    def change(owner: Any, name: str, value: Any) -> None:
        changed.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    try:
        if not known.own:
            _shrink_windows(model, window, change)
        _shrink_lengths(model, length, change)
        if changed:
            policy.inspect(replace(known.length, original=length) if known.length else None)
        yield
    finally:
        forget_lengths(model)
        for owner, name, value in reversed(changed):
            setattr(owner, name, value)
        if changed:
            policy.inspect(known.length)


def _shrink_windows(model: Any, size: int, change: Callable[[Any, str, Any], None]) -> None:
    config = text_config(model)
    for name in WINDOWS:
        if isinstance(getattr(config, name, None), int):
            change(config, name, min(size, getattr(config, name)))


def _shrink_lengths(model: Any, size: int, change: Callable[[Any, str, Any], None]) -> None:
    for module in model.modules():
        if isinstance(module, LengthRotary):
            change(module, "rule", replace(module.rule, original=size))
        elif rule := length_rule(module):
            change(module, "original_max_seq_len", size)
            change(module, "max_seq_len_cached", size)
            change(module.config, "rope_parameters", _with_original(module.config.rope_parameters, size))
            if not rule.two_sets:  # what transformers scales by
                change(module.config, "max_position_embeddings", size)


def _with_original(parameters: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Settings of rotary embeddings, or of several by the type of layer, with another original length."""
    changed = {
        key: _with_original(value, size) if isinstance(value, Mapping) else value for key, value in parameters.items()
    }
    if "original_max_position_embeddings" in changed:
        changed["original_max_position_embeddings"] = size
    return changed
