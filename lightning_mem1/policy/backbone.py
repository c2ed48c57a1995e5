"""The parts of a causal LM of transformers: what makes hidden states, its layers, and what makes logits of them."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn


def backbone_name(causal_lm: nn.Module) -> str:
    """Name of the child that makes hidden states, such as ``model`` or ``transformer``.

    Raises:
        ValueError: there is none, or several that may be it.
    """
    from transformers import PreTrainedModel

    names = [name for name, child in causal_lm.named_children() if isinstance(child, PreTrainedModel)]
    if len(names) == 1:
        return names[0]
    prefix = str(getattr(causal_lm, "base_model_prefix", ""))
    if prefix in dict(causal_lm.named_children()):
        return prefix
    raise ValueError(
        f"{type(causal_lm).__name__} has no part that makes hidden states: expected one model inside it, got "
        f"{names or 'none'}; set model.policy to a causal LM"
    )


def backbone(causal_lm: nn.Module) -> Any:
    """The child that makes hidden states."""
    return getattr(causal_lm, backbone_name(causal_lm))


def decoder_layers(causal_lm: nn.Module) -> dict[str, nn.Module]:
    """The layers by name, in order: the longest of the outermost lists of modules; the backbone itself without any."""
    name = backbone_name(causal_lm)
    inside = getattr(causal_lm, name)
    if hasattr(inside, "language_model"):  # next to towers for images and sound
        name, inside = f"{name}.language_model", inside.language_model
    lists = [(path, each) for path, each in inside.named_modules(prefix=name) if isinstance(each, nn.ModuleList)]
    if not lists:
        return {name: inside}
    path, found = min(lists, key=lambda each: (each[0].count("."), -len(each[1])))
    return {f"{path}.{number}": layer for number, layer in enumerate(found)}


def trains_head(causal_lm: nn.Module) -> bool:
    """Whether gradients are asked for of a weight outside of the backbone, or of one that it shares with the head."""
    name = backbone_name(causal_lm)
    own = causal_lm.parameters(recurse=False)
    children = [child for each, child in causal_lm.named_children() if each != name]
    return any(p.requires_grad for p in (*own, *(p for child in children for p in child.parameters())))


def text_config(causal_lm: Any) -> Any:
    """The config of the language model, which a model of text and images has inside its own."""
    return causal_lm.config.get_text_config(decoder=True)


class Head:
    """Logits of hidden states, by the causal LM's own code: its scales and soft caps are whatever they are there.

    The model's `forward` runs on hidden states that a stand-in for the backbone hands back to it.

    Args:
        causal_lm: Stays as it is; weights and modules are shared with it.
    """

    def __init__(self, causal_lm: nn.Module) -> None:
        self.source, self._name = causal_lm, backbone_name(causal_lm)
        self._stand_in = _StandIn(backbone(causal_lm))
        self.model: Any = copy.copy(causal_lm)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits (n, vocabulary) of hidden states (n, width)."""
        self.model._modules = {**self.source._modules, self._name: self._stand_in}  # adapters come and go
        logits: Tensor = self.model(inputs_embeds=hidden[None], use_cache=False).logits
        return logits[0]


class _StandIn(nn.Module):
    """Hands back the embeddings as hidden states; whatever else is asked of it, the backbone answers."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self._source = [source]  # not a module of its own

    def forward(self, *args: Any, inputs_embeds: Tensor, **kwargs: Any) -> _Output:
        return _Output(inputs_embeds)

    def __getattr__(self, name: str) -> Any:
        if name == "_source" or name.startswith("__"):
            return super().__getattr__(name)
        found = getattr(self._source[0], name)
        return self if isinstance(found, nn.Module) and hasattr(found, "config") else found


class _Output(dict[str, Any]):
    """What a backbone returns: hidden states alone."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__(last_hidden_state=hidden)

    def __getitem__(self, key: Any) -> Any:
        return tuple(self.values())[key] if isinstance(key, int | slice) else super().__getitem__(key)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)
