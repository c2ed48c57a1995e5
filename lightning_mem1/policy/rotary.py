"""Rotary frequencies that depend on the length of the context: dynamic NTK scaling and LongRoPE.

transformers takes the longest position of a forward pass for the length. In a pass that holds many contexts this would
be the longest one's, so the lengths are handed in token by token (`attention.Pass.lengths`). They follow generation:

- LongRoPE has two sets of frequencies, one for contexts up to the original length and one for longer ones. Once a turn
  grows beyond it, all its keys are made again, as Phi-3's own generation does.
- Dynamic NTK scales with the length. The tokens of a context have the frequencies of its length when the turn starts,
  and each new token those of the length it is written at, as in transformers' generation with a cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mem1.policy.attention import carried


@dataclass(frozen=True)
class LengthRule:
    """How a model's frequencies depend on the length of the context.

    Attributes:
        original: Up to this length, in tokens, they do not.
        two_sets: One more set beyond it (LongRoPE), rather than one for every length (dynamic NTK).
    """

    original: int
    two_sets: bool

    def regime(self, length: int) -> int:
        """A number that two lengths share when their frequencies are the same; 0 up to the original length."""
        if length <= self.original:
            return 0
        return self.original + 1 if self.two_sets else length

    def of_row(self, context: int, length: int) -> Tensor:
        """(length,) the lengths of a row's tokens.

        Args:
            context: Tokens before the turn.
            length: Tokens of the row: the context, then those of the turn that are read.
        """
        if self.two_sets:
            return torch.full((length,), length)
        return torch.arange(1, length + 1).clamp(min=context)


class LengthRotary(nn.Module):
    """A rotary embedding of transformers whose length is that of each token's context.

    Args:
        inner: The embedding; without lengths in the pass it runs as it is.
        rule: How it depends on the length.
    """

    def __init__(self, inner: nn.Module, rule: LengthRule) -> None:
        super().__init__()
        self.inner, self.rule = inner, rule

    def forward(self, x: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        """What `inner` returns, such as cosines and sines (B, L, width); arguments as there."""
        along = carried()
        if along is None or along.lengths is None:
            return self.inner(x, position_ids, *args, **kwargs)
        positions = position_ids.expand(along.lengths.shape).flatten()
        regimes = torch.where(along.lengths <= self.rule.original, 0, along.lengths).flatten()
        if self.rule.two_sets:
            regimes = regimes.clamp(max=self.rule.original + 1)
        parts = [
            self._at(regime, x, positions[regimes == regime], *args, **kwargs) for regime in regimes.unique().tolist()
        ]
        order = torch.argsort(regimes, stable=True).argsort()
        if isinstance(parts[0], Tensor):
            return torch.cat(parts)[order].unflatten(0, along.lengths.shape)
        return tuple(torch.cat(each)[order].unflatten(0, along.lengths.shape) for each in zip(*parts, strict=True))

    def _at(self, regime: int, x: Tensor, positions: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The embedding of positions (n,) in contexts of one regime: a last position stands for the length."""
        if not regime:
            positions = positions.clamp(max=self.rule.original - 1)  # what is beyond is padding
        last = torch.full_like(positions[:1], max(regime, 1) - 1)
        self.inner(x, torch.zeros_like(last)[None], *args, **kwargs)  # forgets the longest length it has seen
        found = self.inner(x, torch.cat([positions, last])[None], *args, **kwargs)
        return found[0, :-1] if isinstance(found, Tensor) else tuple(each[0, :-1] for each in found)

    def __getattr__(self, name: str) -> Any:
        if name in ("inner", "rule") or name.startswith("__"):
            return super().__getattr__(name)
        return getattr(super().__getattr__("inner"), name)


def adopt_rotary(causal_lm: nn.Module) -> LengthRule | None:
    """Let every embedding that depends on the length take the lengths of the pass; returns how they do.

    Raises:
        ValueError: embeddings that change at different lengths.
    """
    found: dict[str, tuple[nn.Module, LengthRule]] = {}
    adopted = {id(module.inner) for module in causal_lm.modules() if isinstance(module, LengthRotary)}
    for name, module in causal_lm.named_modules():
        if isinstance(module, LengthRotary):
            found[name] = (module.inner, module.rule)
        elif id(module) not in adopted and (rule := length_rule(module)):
            found[name] = (module, rule)
    rules = {rule for _, rule in found.values()}
    if len(rules) > 1:
        raise ValueError(
            f"rotary embeddings change at different lengths: expected one original length, got "
            f"{', '.join(f'{rule.original} in {name}' for name, (_, rule) in found.items())}; use another model.policy"
        )
    for name, (module, rule) in found.items():
        setattr(causal_lm.get_submodule(_parent(name)), name.rpartition(".")[2], LengthRotary(module, rule))
    return next(iter(rules), None)


@torch.no_grad()
def forget_lengths(causal_lm: nn.Module) -> None:
    """Let every embedding that scales with the longest length it has seen start again."""
    for module in causal_lm.modules():
        if isinstance(module, LengthRotary):
            kinds: Any = module.inner.rope_type
            weight = next(causal_lm.parameters())
            for layer_type in kinds if isinstance(kinds, dict) else [None]:
                given = {} if layer_type is None else {"layer_type": layer_type}
                module.inner(weight, torch.zeros(1, 1, dtype=torch.long, device=weight.device), **given)


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def length_rule(module: Any) -> LengthRule | None:
    """How a rotary embedding of transformers depends on the length; None for one that does not, and other modules."""
    kinds = module.__dict__.get("rope_type")
    if kinds is None:
        return None
    config = module.config
    found = set()
    for layer_type, kind in kinds.items() if isinstance(kinds, dict) else [(None, kinds)]:
        settings = config.rope_parameters if layer_type is None else config.rope_parameters[layer_type]
        if "dynamic" in kind:
            found.add(LengthRule(int(module.original_max_seq_len), two_sets=False))
        elif kind == "longrope":
            found.add(LengthRule(int(settings["original_max_position_embeddings"]), two_sets=True))
    if len(found) > 1:
        raise ValueError(f"{type(module).__name__} scales in more than one way with the length: {kinds}")
    return next(iter(found), None)
