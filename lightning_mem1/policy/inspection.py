"""Finding out, by running it, how a causal LM attends: nothing here knows a model by its name.

A few tokens run through the model while this package's attention watches. Masks come from the function that the model
itself asks transformers for, so windows and chunks are what they are there. Then a packed row of two segments is
compared with the model's own attention on either context. A layer that mixes tokens in another way shows there, and
the model keeps its own attention, on one context a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mem1.policy.architecture import Architecture
from lightning_mem1.policy.attention import LAYER, NAME, AttentionLayer, Pass, carrying, watched
from lightning_mem1.policy.backbone import Head, backbone, decoder_layers, text_config
from lightning_mem1.policy.blocks import Block
from lightning_mem1.policy.rotary import LengthRule
from lightning_mem1.policy.scores import PositionRule, Scores, attend
from lightning_mem1.policy.tree_table import tree_table

PROMPT, SEGMENTS = 6, (5, 7)  # tokens of the row that is compared
ROWS = (17, 150)  # tokens of the rows on which a model's own attention is tried
TOLERANCE = 1e-3  # relative difference of a token's hidden state in float32 and float64
ROUGH = 0.15  # of their mean in 16 bits, where routers may choose other experts for a token; other tokens give about 1
HARMLESS = {"position_ids", "cache_position", "position_embeddings"}  # tensors that repeat what queries and keys hold
Computing = Callable[[], AbstractContextManager[Any]]


@contextmanager
def evaluating(causal_lm: nn.Module) -> Iterator[None]:
    """Inside, the model is in evaluation mode and nothing has a gradient; afterwards every module is as before."""
    modes = [(module, module.training) for module in causal_lm.modules()]
    causal_lm.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def untouched(causal_lm: Any) -> Iterator[None]:
    """Inside, the model is transformers' own with eager attention, as in `evaluating`."""
    before = causal_lm.config._attn_implementation
    try:
        if before != "eager":
            causal_lm.config._attn_implementation = "eager"
        with evaluating(causal_lm), carrying(None):
            yield
    finally:
        if causal_lm.config._attn_implementation != before:
            causal_lm.config._attn_implementation = before


def inspect_layers(causal_lm: Any, length: LengthRule | None, computing: Computing) -> Architecture:
    """Run a causal LM on a few tokens; leaves an `AttentionLayer` at every layer that attends.

    Args:
        causal_lm: On the device where it will run.
        length: How its rotary frequencies depend on the length.
        computing: Around a forward pass.

    Raises:
        ValueError: the model does not run, or its logits cannot be made of its hidden states.
    """
    with untouched(causal_lm), computing():
        expected = [_run(causal_lm, _ids(causal_lm, part)) for part in range(len(SEGMENTS))]
        _check_head(causal_lm, expected[0].hidden)
    known = Architecture(length=length, max_positions=_max_positions(causal_lm))
    found = known if causal_lm.config._attn_implementation != NAME else _probed(causal_lm, known, computing)
    if not found.layers:
        reason = found.own or f"{_first(causal_lm)} has attention of its own"
        return _with_own_attention(causal_lm, replace(known, own=reason, slots=reason), computing)
    if difference := _in_a_tree(causal_lm, expected, found, computing):
        return _with_own_attention(causal_lm, replace(known, own=difference, slots=difference), computing)
    return found


@dataclass(frozen=True)
class _Seen:
    """Hidden states (T, width) of a run: the last ones, and those after each layer, by its name."""

    hidden: Tensor
    layers: Mapping[str, Tensor]


def _ids(causal_lm: Any, part: int | None = None) -> Tensor:
    """(1, T) the packed row, or the context of one of its segments; any tokens will do."""
    ends = [PROMPT, PROMPT + SEGMENTS[0], PROMPT + sum(SEGMENTS)]
    ids = _tokens(causal_lm, ends[-1])
    kept = ids if part is None else torch.cat([ids[:PROMPT], ids[ends[part] : ends[part + 1]]])
    return kept[None]


def _tokens(causal_lm: Any, count: int) -> Tensor:
    """(count,) ids, no two of them alike where the vocabulary allows it."""
    vocabulary = causal_lm.get_input_embeddings().weight.shape[0]
    return ((torch.arange(count) * 37 + 11) % vocabulary).to(causal_lm.device)


def _run(causal_lm: Any, ids: Tensor, **kwargs: Any) -> _Seen:
    """Run the backbone on (1, T) tokens."""
    layers: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            out = output if isinstance(output, Tensor) else output[0]
            layers.setdefault(name, out[0].float())

        return hook

    hooks = [layer.register_forward_hook(keep(name)) for name, layer in decoder_layers(causal_lm).items()]
    try:
        hidden = backbone(causal_lm)(input_ids=ids, use_cache=False, **kwargs).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    return _Seen(hidden[0].float(), layers)


def differs(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether vectors (..., width) that a model of this dtype made are not what is expected but for rounding."""
    if found.shape != expected.shape:
        return True
    relative = (found - expected).norm(dim=-1) / expected.norm(dim=-1).clamp(min=1e-6)
    if dtype in (torch.float32, torch.float64):
        return not float(relative.max()) <= TOLERANCE
    return not float(relative.mean()) <= ROUGH


def _check_head(causal_lm: Any, hidden: Tensor) -> None:
    """Logits that are made of hidden states have to be the model's."""
    expected = causal_lm(input_ids=_ids(causal_lm, 0), use_cache=False).logits[0]
    try:
        logits = Head(causal_lm)(hidden.to(causal_lm.dtype))
    except Exception as error:  # whatever the model's forward does with what is not there
        raise ValueError(_headless(causal_lm, " ".join(str(error).split())[:120])) from error
    if differs(logits.float(), expected.float(), causal_lm.dtype):
        raise ValueError(_headless(causal_lm, "other logits"))


def _headless(causal_lm: Any, got: str) -> str:
    return (
        f"{type(causal_lm).__name__} makes its logits of more than hidden states: expected those of its forward pass, "
        f"got {got}; use another model.policy"
    )


def _probed(causal_lm: Any, known: Architecture, computing: Computing) -> Architecture:
    """The layers that attend, with the reasons that speak against this package's attention."""
    probe = _Probe()
    ids = _ids(causal_lm, 0)
    positions = torch.arange(ids.shape[1], device=ids.device)[None]
    try:
        with evaluating(causal_lm), computing(), watched(probe):
            _run(causal_lm, ids, position_ids=positions, tokens_of_probe=ids)
    except Exception as error:  # a model's code may do anything with a mask that is not its own
        return replace(known, own=f"{_first(causal_lm)} does not run: {' '.join(str(error).split())[:120]}")
    return probe.result(causal_lm, known)


@dataclass(frozen=True)
class _Call:
    module: nn.Module
    layer: AttentionLayer | None  # None where the mask is not one that was made for the layer
    keywords: bool
    unknown: tuple[str, ...]


class _Probe:
    """Watches one forward pass; see `attention.Watcher`."""

    def __init__(self) -> None:
        self._masks: dict[int, tuple[Tensor, PositionRule | None]] = {}  # by address, which the mask kept here holds
        self._calls: list[_Call] = []

    def mask(
        self,
        q_length: int,
        mask_function: Callable[..., Tensor],
        device: torch.device | str = "cpu",
        local_size: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        places = torch.arange(q_length, device=device)
        mask = mask_function(0, 0, places[:, None], places).expand(1, 1, q_length, q_length).contiguous()
        self._masks[mask.data_ptr()] = (mask, _position_rule(mask_function, local_size, device))
        return mask

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scores: Scores,
        others: Mapping[str, Any],
    ) -> Tensor:
        rule = None if mask is None else self._masks.get(mask.data_ptr(), (mask, None))[1]
        shape = (key.shape[1], key.shape[3], value.shape[3])
        layer = None if rule is None else AttentionLayer(len(self._calls), rule, *shape)
        tensors = {name for name, each in others.items() if isinstance(each, Tensor)} - HARMLESS
        unknown = tuple(sorted(tensors - {"tokens_of_probe"}))
        self._calls.append(_Call(module, layer, "tokens_of_probe" in others, unknown))
        if mask is None:
            mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()[None, None]
        return attend(query, key, value, mask, scores).transpose(1, 2).contiguous()

    def result(self, causal_lm: Any, known: Architecture) -> Architecture:
        names = {id(module): name for name, module in causal_lm.named_modules()}
        for call in self._calls:
            name = f"{names[id(call.module)]} ({type(call.module).__name__})"
            if call.layer is None:
                return replace(known, own=f"{name} hides tokens by a rule of its own")
            if call.unknown:
                return replace(known, own=f"{name} attends by its own {', '.join(call.unknown)}")
        layers = []
        for call in self._calls:
            assert call.layer is not None
            layers.append(call.layer)
            setattr(call.module, LAYER, call.layer)
        twice = len({id(call.module) for call in self._calls}) < len(self._calls)
        slots = f"{names[id(self._calls[0].module)]} attends more than once in a pass" if twice else ""
        return replace(known, layers=tuple(layers), keywords=all(c.keywords for c in self._calls), slots=slots)


def _position_rule(
    mask_function: Callable[..., Tensor], local_size: int | None, device: torch.device | str
) -> PositionRule | None:
    """The rule that a mask function draws, found by looking at it around the places where one would show."""
    size = local_size or 0
    near = {n * size + offset for n in range(3) for offset in (-2, -1, 0, 1, 2)} | {0, 1, 2, 3, 5, 8}
    places = torch.tensor(sorted(place for place in near if place >= 0), device=device)
    query, key = places[:, None], places[None]
    try:
        seen = mask_function(0, 0, query, key)
    except Exception:  # a function of more than positions
        return None
    candidates = [PositionRule(), PositionRule(window=size), PositionRule(chunk=size)] if size else [PositionRule()]
    drawn = seen.expand(len(places), len(places))
    fitting = [rule for rule in candidates if torch.equal(rule.sees(query, key) & (key <= query), drawn)]
    return next(iter(fitting), None)


def _in_a_tree(causal_lm: Any, expected: Sequence[_Seen], found: Architecture, computing: Computing) -> str:
    """What is different in a packed row, empty when nothing is."""
    starts = [PROMPT, PROMPT + SEGMENTS[0]]
    table = tree_table([Block(0, PROMPT), *(Block(s, n, 0) for s, n in zip(starts, SEGMENTS, strict=True))])
    table = table.to(causal_lm.device)
    try:
        with evaluating(causal_lm), computing(), carrying(Pass(tree=table)):
            given = {"tree": table} if found.keywords else {}
            row = _run(causal_lm, _ids(causal_lm), position_ids=table.positions[None], **given)
    except Exception as error:  # a model's code may do anything with positions that restart
        return f"{_first(causal_lm)} does not run in a packed row: {' '.join(str(error).split())[:120]}"
    for part, (start, count) in enumerate(zip(starts, SEGMENTS, strict=True)):
        places = [*range(PROMPT), *range(start, start + count)]
        if differs(row.hidden[places], expected[part].hidden, causal_lm.dtype):
            return _first_difference(causal_lm, row, expected[part], places)
    return ""


def _first_difference(causal_lm: Any, row: _Seen, expected: _Seen, places: list[int]) -> str:
    layers = decoder_layers(causal_lm)
    for name, hidden in expected.layers.items():
        if name not in row.layers or row.layers[name].shape[0] <= max(places):
            continue
        if differs(row.layers[name][places], hidden, causal_lm.dtype):
            return f"{name} ({type(layers[name]).__name__}) mixes tokens by itself"
    return f"{_first(causal_lm)} computes otherwise in a packed row"


def _with_own_attention(causal_lm: Any, found: Architecture, computing: Computing) -> Architecture:
    """Switch to the fastest attention of the model's own that gives what eager attention does."""
    for module in causal_lm.modules():
        module.__dict__.pop(LAYER, None)
    rows = [_tokens(causal_lm, min(count, found.max_positions or count)) for count in ROWS]
    with untouched(causal_lm), computing():
        expected = [_run(causal_lm, row[None]).hidden for row in rows]
    usable: dict[str, bool] = {}  # by implementation: whether padded rows are right too
    for name in ("sdpa", "eager") if getattr(causal_lm, "_supports_sdpa", False) else ("eager",):
        causal_lm.config._attn_implementation = name
        if _equals(causal_lm, rows, expected, computing, padded=False):
            usable[name] = _equals(causal_lm, rows, expected, computing, padded=True)
    if not usable:
        raise ValueError(
            f"{type(causal_lm).__name__} does not repeat what it computes: expected the same hidden states of the same "
            "tokens, got others; use another model.policy"
        )
    causal_lm.config._attn_implementation = max(usable, key=lambda name: usable[name])
    return replace(found, padded=any(usable.values()))


def _equals(causal_lm: Any, rows: list[Tensor], expected: Sequence[Tensor], computing: Computing, padded: bool) -> bool:
    """Whether rows run by themselves, or padded to the longest, give what is expected."""
    try:
        with evaluating(causal_lm), computing():
            if padded:
                ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
                lengths = torch.tensor([[len(row)] for row in rows], device=ids.device)
                mask = (torch.arange(ids.shape[1], device=ids.device) < lengths).long()
                hidden = backbone(causal_lm)(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
                found = [states[: len(row)].float() for states, row in zip(hidden, rows, strict=True)]
            else:
                found = [_run(causal_lm, row[None]).hidden for row in rows]
    except Exception:  # an attention that the model lacks, or a mask that it does not take
        return False
    return not any(differs(a, b, causal_lm.dtype) for a, b in zip(found, expected, strict=True))


def _max_positions(causal_lm: Any) -> int | None:
    """The limit that a table of positions sets, if there is one."""
    limit = getattr(text_config(causal_lm), "max_position_embeddings", None)
    if not isinstance(limit, int):
        return None
    words = causal_lm.get_input_embeddings()
    sizes = {len(m.weight) for m in causal_lm.modules() if isinstance(m, nn.Embedding) and m is not words}
    tables = [buffer for buffer in causal_lm.buffers() if buffer.dim() > 1]  # sines of positions, or drawn masks
    sizes |= {table.shape[-1 if table.dim() == 4 else 0] for table in tables}
    return limit if any(limit <= size <= limit + 8 for size in sizes) else None


def _first(causal_lm: Any) -> str:
    name, layer = next(iter(decoder_layers(causal_lm).items()))
    return f"{name} ({type(layer).__name__})"
