"""Layers that keep a state: gated delta rule, short convolution, state space.

transformers' layers of this kind continue from a state that a cache hands them: the last inputs of their convolution
and the state of their recurrence. `adopt` gives each of them a `forward` that runs the model's own code on rows of our
choice, with `LayerStates` in the cache's place:

- with ``tree=`` prompts first, then their segments from the states that the prompts left, with gradients through them;
- with ``slots=`` as an engine asks, which keeps the states of its slots;
- with neither, as they are. Padding is at the end of rows then, behind every token that is scored.

Attention layers of the same model keep the packed row.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from lightning_mem1.policy.attention import carried
from lightning_mem1.policy.recurrent_kernels import NO_LIMIT, prepare, rows_from
from lightning_mem1.policy.recurrent_rows import RowGroup, RowPlan

CACHE_ARGUMENTS = ("cache_params", "past_key_values")
INTERFACE = {"update_conv_state", "update_recurrent_state", "get_conv_state", "get_recurrent_state"}
# how layers outside of the interface reach a state of their own
OTHER_STATES = {
    "get_linear_cache",
    "set_linear_cache",
    "store_compression_weights",
    "update_compressor_states",
    "update_indexer",
    "recurrent_states",
    "conv1d_state",
    "rnn_state",
}
SIXTEEN_BITS = (torch.bfloat16, torch.float16)


class LayerStates:
    """The states of one layer for some rows; what a layer of transformers takes for its cache.

    A layer may keep several of each kind, counted by `state_idx`. Without any it starts from nothing.

    Args:
        conv: state_idx -> (rows, channels, width) last inputs of a convolution.
        recurrent: state_idx -> (rows, ...) state of a recurrence.
    """

    record_past = False

    def __init__(self, conv: Mapping[int, Tensor] | None = None, recurrent: Mapping[int, Tensor] | None = None) -> None:
        self.conv_states = dict(conv or {})
        self.recurrent_states = dict(recurrent or {})

    def map(self, function: Callable[[Tensor], Tensor]) -> LayerStates:
        """The states that a function makes of each tensor."""
        conv, recurrent = (
            {number: function(state) for number, state in states.items()}
            for states in (self.conv_states, self.recurrent_states)
        )
        return LayerStates(conv, recurrent)

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """The last inputs of a convolution, None at the start."""
        return self.conv_states.get(state_idx)

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """The state of a recurrence, None at the start."""
        return self.recurrent_states.get(state_idx)

    def is_recording_past(self, layer_idx: int) -> bool:
        """Whether states of earlier tokens are kept: never."""
        return False

    def update_conv_state(
        self, conv_states: Tensor, layer_idx: int, state_idx: int = 0, conv_kernel_size: int | None = None, **_: Any
    ) -> Tensor:
        """Take new inputs (rows, channels, tokens) of a convolution; returns them behind the ones kept before."""
        width = conv_states.shape[-1] if conv_kernel_size is None else conv_kernel_size
        before = self.conv_states.get(state_idx)
        if before is None:
            before = conv_states.new_zeros(*conv_states.shape[:-1], max(0, width - conv_states.shape[-1]))
        seen = torch.cat([before, conv_states], dim=-1)
        self.conv_states[state_idx] = seen[..., -width:]
        return seen

    def update_recurrent_state(self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **_: Any) -> Tensor:
        """Take the state after the last token."""
        self.recurrent_states[state_idx] = recurrent_states
        return recurrent_states

    # transformers before 5.20 reads a layer of the cache in place of asking for its states

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:
        """Whether there is a state to start from."""
        return bool(self.conv_states)

    @property
    def layers(self) -> _EveryLayer:
        """The cache's layers: these states, whatever the number."""
        return _EveryLayer(self)


class _EveryLayer:
    def __init__(self, states: LayerStates) -> None:
        self._states = states

    def __getitem__(self, layer_idx: int) -> LayerStates:
        return self._states


Rows = Callable[[Tensor, LayerStates], Tensor]  # (rows, tokens, width) and their states, which it changes -> the same


class StateStore(Protocol):
    """Where the states of rows come from and go to."""

    def read(self, group: RowGroup) -> LayerStates:
        """The states that a group's rows start from, for the layer to overwrite."""
        ...

    def write(self, group: RowGroup, states: LayerStates) -> None:
        """Keep the states that a group's rows left."""
        ...


class SlotStates(Protocol):
    """What an engine hands to `model(...)` as ``slots=``, for recurrent layers."""

    def recur(self, layer: int, hidden: Tensor, rows: Rows) -> Tensor:
        """Run the pass's tokens (1, T, width) through a recurrent layer, counted from 0."""
        ...


class PromptStates:
    """The states that prompts leave, kept as they are made: segments read them with gradients."""

    def __init__(self) -> None:
        self._written: list[LayerStates] = []
        self._all: LayerStates | None = None

    def read(self, group: RowGroup) -> LayerStates:
        if group.reads is None:
            return LayerStates()
        if self._all is None:
            self._all = _joined(self._written)
        reads = group.reads
        return self._all.map(lambda state: state.index_select(0, reads))

    def write(self, group: RowGroup, states: LayerStates) -> None:
        if group.writes is not None:
            self._written.append(states)


def _joined(parts: list[LayerStates]) -> LayerStates:
    if len(parts) == 1:
        return parts[0]
    conv, recurrent = (
        {number: torch.cat([getattr(part, kind)[number] for part in parts]) for number in getattr(parts[0], kind)}
        for kind in ("conv_states", "recurrent_states")
    )
    return LayerStates(conv, recurrent)


def in_rows(hidden: Tensor, plan: RowPlan, rows: Rows, store: StateStore) -> Tensor:
    """Run a packed row (1, T, width) through a recurrent layer, group by group; returns the same shape."""
    outputs = []
    for group in plan.groups:
        states = store.read(group)
        out = rows(_taken(hidden[0], group.index), states).flatten(0, 1)
        store.write(group, states)
        outputs.append(out if group.places is None else _taken(out, group.places))
    return _taken(torch.cat(outputs), plan.restore)[None]


def _taken(source: Tensor, index: Tensor) -> Tensor:
    """Tokens (T, width) by an index of any shape; gradients are summed as `attention._taken` sums them."""
    if source.is_cuda:
        return source.index_select(0, index.flatten()).unflatten(0, index.shape)
    return source[index]


class RecurrentLayer(nn.Module):
    """What `adopt` puts before a layer's own class.

    Attributes:
        recurrent_number: Which of the model's recurrent layers it is, counted from 0.
        cache_argument: The name of its own argument for the cache.
    """

    recurrent_number: int
    cache_argument: str

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def forward(
        self,
        hidden_states: Tensor,
        *args: Any,
        tree: Any = None,
        slots: SlotStates | None = None,
        tree_kernel: str = "",
        **kwargs: Any,
    ) -> Any:
        """As the layer's own, along a segment table (`TreeTable`) or an engine's slots, see `attention.Pass`."""
        if tree is None and slots is None and (along := carried()) is not None:  # not every model hands keywords on
            tree, slots = along.tree, along.slots  # type: ignore[assignment]

        def rows(hidden: Tensor, states: LayerStates) -> Tensor:
            return self.in_states(hidden, states, **{**kwargs, "attention_mask": None})

        if tree is not None:
            return in_rows(hidden_states, tree.state_rows, rows, PromptStates())
        if slots is not None:
            return slots.recur(self.recurrent_number, hidden_states, rows)
        if not args and kwargs.get(self.cache_argument) is None:
            # without a cache, fused kernels would take weights past their adapters
            return self.in_states(hidden_states, LayerStates(), **kwargs)
        return super().forward(hidden_states, *args, **kwargs)  # type: ignore[misc]

    def in_states(self, hidden: Tensor, states: LayerStates, **kwargs: Any) -> Tensor:
        """The layer's own forward on rows (n, S, width), from states and with its new states in the same object."""
        with rows_from(states.get_recurrent_state(0), getattr(self, "time_step_limit", NO_LIMIT)):
            out: Tensor = super().forward(hidden, **{**kwargs, self.cache_argument: states})  # type: ignore[misc]
        return out

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copies and pickles of a class that is made here."""
        return _empty, (type(self).__mro__[2],), self.__dict__


@cache
def _adopted(layer: Any) -> Any:
    """A class of transformers' layers with `RecurrentLayer` before it."""
    arguments = inspect.signature(layer.forward).parameters
    name = next(name for name in CACHE_ARGUMENTS if name in arguments)
    prepare(layer)
    values = {"cache_argument": name, "__module__": layer.__module__}
    return type(layer.__name__, (RecurrentLayer, layer), values)


def _empty(layer: Any) -> Any:
    kind = _adopted(layer)
    return kind.__new__(kind)


def adopt(model: nn.Module) -> None:
    """Have a causal LM's recurrent layers run along segment tables and slots (safe to repeat)."""
    for module in model.modules():
        kind: Any = type(module)
        if _has_interface(kind):
            module.__class__ = _adopted(kind)
    for number, layer in enumerate(recurrent_layers(model)):
        layer.recurrent_number = number


def leave_uncompiled(model: nn.Module) -> None:
    """Have torch.compile leave recurrent layers out: their numbers and slots make each another function to it."""
    for layer in recurrent_layers(model):
        kind: Any = type(layer)
        if kind.forward is RecurrentLayer.forward:
            kind.forward = torch.compiler.disable(RecurrentLayer.forward)


def recurrent_layers(model: nn.Module) -> list[RecurrentLayer]:
    """The layers that `adopt` found, in order."""
    return [module for module in model.modules() if isinstance(module, RecurrentLayer)]


def check_no_drawn_mask(model: nn.Module, mask: Tensor | None) -> None:
    """Raise ValueError for a mask (B, 1, L, L) that hides tokens from attention and cannot from a state."""
    if mask is None or mask.dim() == 2:
        return
    for name, module in model.named_modules():
        if isinstance(module, RecurrentLayer):
            raise ValueError(
                f"layouts stitched and official need attention in every layer: {name} ({type(module).__name__}) keeps "
                "a state, from which no mask hides a token; set model.layout tree or rows"
            )


def unknown_recurrent_layers(model: nn.Module) -> list[str]:
    """Layers that keep a state in a way that is not known here: one name of each class, such as ``layers.0.mixer (X)``.

    A model that has any can be neither trained in layout `tree` nor played by the local engine. Adopted layers are
    tried: they have to continue from a state with several tokens and with one.
    """
    found: dict[str, str] = {}
    tried: set[type] = set()
    for name, module in model.named_modules():
        kind: Any = type(module)
        if kind in tried:
            continue
        tried.add(kind)
        if not _continues(module, model) if isinstance(module, RecurrentLayer) else _keeps_state(kind):
            found[kind.__name__] = f"{name} ({kind.__name__})"
    if not found and getattr(model, "_is_stateful", False) and not recurrent_layers(model):
        return [type(model).__name__]
    return list(found.values())


def bypassed_linears(model: nn.Module) -> list[str]:
    """Names of linear layers whose weights their recurrent layer reads itself: an adapter there would do nothing."""
    names: list[str] = []
    found: dict[type, set[str]] = {}
    for name, module in model.named_modules():
        if isinstance(module, RecurrentLayer):
            if type(module) not in found:
                found[type(module)] = _bypassed(module, model)
            names += [f"{name}.{child}" for child in sorted(found[type(module)])]
    return names


@torch.no_grad()
def _bypassed(layer: RecurrentLayer, model: Any) -> set[str]:
    linear = {
        name.removesuffix(".base_layer"): child  # adapters that are there already are around it, or next to it
        for name, child in layer.named_modules()
        if isinstance(child, nn.Linear) and ".lora_" not in name
    }
    called: set[str] = set()
    hooks = [
        child.register_forward_pre_hook(lambda module, args, name=name: called.add(name))
        for name, child in linear.items()
    ]
    try:
        with _computing(model):
            layer.in_states(_tokens(3, layer, model), LayerStates())
    finally:
        for hook in hooks:
            hook.remove()
    return linear.keys() - called


def _computing(model: Any) -> torch.autocast:
    """As `Policy.computing`: adapters of 16-bit weights are float32."""
    return torch.autocast(model.device.type, model.dtype, enabled=model.dtype in SIXTEEN_BITS, cache_enabled=False)


def _tokens(count: int, layer: RecurrentLayer, model: Any) -> Tensor:
    """(1, count, width) any hidden states."""
    width = model.get_input_embeddings().weight.shape[1]
    places = torch.arange(float(count * width), device=next(layer.parameters()).device)
    return torch.sin(places).reshape(1, count, width).to(model.dtype)


@cache
def _has_interface(layer: Any) -> bool:
    """Whether a layer takes its states from transformers' cache, and everything else from its input alone."""
    if issubclass(layer, RecurrentLayer):
        return False
    arguments = dict(inspect.signature(layer.forward).parameters)
    if not (_names(layer.forward) & INTERFACE and {"hidden_states", "attention_mask"} <= arguments.keys()):
        return False
    needed = [
        name for name, each in arguments.items() if each.default is each.empty and each.kind < each.VAR_POSITIONAL
    ]
    return needed == ["self", "hidden_states"] and any(name in arguments for name in CACHE_ARGUMENTS)


@cache
def _keeps_state(kind: Any) -> bool:
    from transformers import PreTrainedModel

    if issubclass(kind, PreTrainedModel):
        return False
    functions = [each for each in vars(kind).values() if callable(each)]
    return any(_names(each) & (INTERFACE | OTHER_STATES) or _takes_state(each) for each in functions)


def _takes_state(function: Any) -> bool:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and function.__name__ == "forward" and "state" in code.co_varnames[: code.co_argcount]


def _names(function: Any) -> set[str]:
    """The attributes and globals that a function reads."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return set() if code is None else set(code.co_names)


@torch.no_grad()
def _continues(layer: RecurrentLayer, model: Any) -> bool:
    """Whether six tokens at once are the same as three, then three more, and as three, then one."""
    hidden = _tokens(6, layer, model)
    states, more = LayerStates(), LayerStates()
    try:
        with _computing(model):
            whole = layer.in_states(hidden, LayerStates())
            layer.in_states(hidden[:, :3], states)
            single = layer.in_states(hidden[:, 3:4], states.map(torch.clone))
            several = layer.in_states(hidden[:, 3:], more := states.map(torch.clone))
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError):
        return False
    limit = (0.05 if model.dtype in SIXTEEN_BITS else 1e-3) * float(whole.abs().max())
    gaps = [float((part - whole[:, 3 : 3 + part.shape[1]]).abs().max()) for part in (single, several)]
    return max(gaps) <= limit and bool(more.conv_states)
