"""Routing replay: the experts that a rollout chose are taken again in training (R3, arXiv 2510.11370).

Routers of a mixture of experts choose by the highest of some scores. Where rollout and training round differently, two
scores that are nearly equal change places, and a token goes through another expert. Here the choices of a pass are
recorded, and another pass takes them: the scores, the weights made of them and their gradients stay the router's own.

Nothing here knows a router by its name. A router is a module whose forward calls ``topk`` on scores (tokens, experts).
That call is what is recorded, and what returns other experts with their own scores. Routers that first choose groups of
experts do so by a call of the same kind, which is one more choice of the token.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_mem1.policy.attention import Pass, carried, carrying
from lightning_mem1.policy.backbone import backbone
from lightning_mem1.policy.expert_choices import UNKNOWN
from lightning_mem1.policy.inspection import differs, evaluating

FIRST_COLUMN = "lightning_mem1_first_column"  # attribute of a router: where its choices begin among those of a token
TOKENS = 7  # of the passes that are tried
Computing = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Routers:
    """The routers of a model.

    Attributes:
        names: Of the modules, in the order in which a forward pass comes to them.
        width: Choices of a token, those of all routers.
        num_options: The most experts that one of them chooses from.
    """

    names: tuple[str, ...]
    width: int
    num_options: int

    @property
    def dtype(self) -> torch.dtype:
        """The smallest in which a choice can be kept."""
        return torch.uint8 if self.num_options <= 256 else torch.int16

    def gathered(self, chosen: Mapping[int, Tensor]) -> Tensor:
        """The choices (tokens, width) of a pass, of what its routers left in `Pass.chosen`."""
        return torch.cat([chosen[column] for column in sorted(chosen)], dim=1).to(self.dtype)


def find_routers(causal_lm: Any, computing: Computing, source: str) -> Routers:
    """Find a model's routers by running it on a few tokens, and let them record and replay from then on.

    Args:
        causal_lm: On the device where it will run.
        computing: Around a forward pass.
        source: Its name, for messages.

    Raises:
        ValueError: there are none, or what they are given to take changes nothing.
    """
    with evaluating(causal_lm), computing(), _calls(causal_lm) as calls:
        expected = _run(causal_lm, None)
    if not calls:
        raise ValueError(_refused(source, "no router that calls topk: a dense model, or experts chosen in another way"))
    column, most = 0, 1
    for module, choices in calls.items():
        setattr(module, FIRST_COLUMN, column)
        if not getattr(module, "_lightning_mem1_hooked", False):
            module.register_forward_pre_hook(_enter)
            module.register_forward_hook(_leave, always_call=True)
            module._lightning_mem1_hooked = True  # type: ignore[assignment]
        column += sum(k for k, _ in choices)
        most = max(most, *(options for _, options in choices))
    names = {id(module): name for name, module in causal_lm.named_modules()}
    routers = Routers(tuple(names[id(module)] for module in calls), column, most)
    options = [options for choices in calls.values() for k, options in choices for _ in range(k)]
    _check(causal_lm, routers, torch.tensor(options), expected, computing, source)
    return routers


def _run(causal_lm: Any, along: Pass | None) -> Tensor:
    """Hidden states (T, width) of a few tokens."""
    vocabulary = causal_lm.get_input_embeddings().weight.shape[0]
    ids = ((torch.arange(TOKENS) * 37 + 11) % vocabulary).to(causal_lm.device)
    with carrying(along):
        hidden: Tensor = backbone(causal_lm)(input_ids=ids[None], use_cache=False).last_hidden_state
    return hidden[0]


def _check(
    causal_lm: Any, routers: Routers, options: Tensor, expected: Tensor, computing: Computing, source: str
) -> None:
    """What was recorded has to give the same hidden states again, and other experts others."""
    with evaluating(causal_lm), computing():
        chosen: dict[int, Tensor] = {}
        _run(causal_lm, Pass(chosen=chosen))
        own = routers.gathered(chosen).short()
        same, taken = _run(causal_lm, Pass(experts=own[None])), dict[int, Tensor]()
        others = ((own + 1) % options.to(own)).short()
        different = _run(causal_lm, Pass(experts=others[None], chosen=taken))
    if own.shape != (TOKENS, routers.width) or differs(same.float(), expected.float(), causal_lm.dtype):
        raise ValueError(_refused(source, f"other hidden states when {routers.names[0]} takes what it chose"))
    if not torch.equal(routers.gathered(taken).short(), others) or torch.equal(different, expected):
        raise ValueError(_refused(source, f"the same hidden states whatever {routers.names[0]} takes"))


def _refused(source: str, got: str) -> str:
    return (
        f"nothing to replay in '{source}': expected a mixture of experts, got {got}; set model.engine.replay_routing "
        "false"
    )


class _Choosing(TorchFunctionMode):
    """Around the forward of one router: records its choices, or has it take others."""

    def __init__(self, first: int, along: Pass) -> None:
        super().__init__()
        self._column, self._first, self._along = first, first, along
        self._chosen: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not _chooses(func, result, args, kwargs):
            return result
        values, indices = result
        width = indices.shape[1]
        if (given := self._along.experts) is not None:
            given = given.flatten(0, 1)[:, self._column : self._column + width].long()
            if given.shape != indices.shape:
                raise ValueError(
                    f"cannot replay routing: expected choices of {len(indices)} tokens, got {tuple(given.shape)}"
                )
            indices = torch.where(given == UNKNOWN, indices, given)
            scores = args[0] if args else kwargs["input"]
            result = torch.return_types.topk((scores.gather(1, indices), indices))
        self._chosen.append(indices)
        self._column += width
        if self._along.chosen is not None:
            self._along.chosen[self._first] = torch.cat(self._chosen, dim=1)
        return result


def _chooses(func: Any, result: Any, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether a call is one by which tokens get some of several experts, or of several groups of them."""
    if func not in (torch.topk, Tensor.topk) or result.indices.dim() != 2:
        return False
    scores = args[0] if args else kwargs["input"]
    if not (kwargs.get("dim", args[2] if len(args) > 2 else -1) in (-1, 1) and kwargs.get("largest", True)):
        return False
    return bool(result.indices.shape[1] < scores.shape[1])


_ENTERED = threading.local()


def _enter(module: nn.Module, args: Any) -> None:
    along = carried()
    active = along is not None and (along.experts is not None or along.chosen is not None)
    mode = _Choosing(int(getattr(module, FIRST_COLUMN)), along) if active and along else None
    _ENTERED.__dict__.setdefault("modes", []).append(mode)
    if mode is not None:
        mode.__enter__()


def _leave(module: nn.Module, args: Any, output: Any) -> None:
    mode = _ENTERED.modes.pop()
    if mode is not None:
        mode.__exit__(None, None, None)


class _Listening(TorchFunctionMode):
    """Notes which module calls topk: the innermost one that runs."""

    def __init__(self, running: list[nn.Module]) -> None:
        super().__init__()
        self._running = running
        self.calls: dict[nn.Module, list[tuple[int, int]]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if _chooses(func, result, args, kwargs or {}) and self._running and len(result.indices) == TOKENS:
            options = (args[0] if args else (kwargs or {})["input"]).shape[1]
            self.calls.setdefault(self._running[-1], []).append((result.indices.shape[1], options))
        return result


@contextmanager
def _calls(causal_lm: nn.Module) -> Iterator[dict[nn.Module, list[tuple[int, int]]]]:
    """Inside, the choices of a pass are noted: by module (how many, out of how many) of each call."""
    running: list[nn.Module] = []

    def begins(module: nn.Module, args: Any) -> None:
        running.append(module)

    def ends(module: nn.Module, args: Any, output: Any) -> None:
        running.pop()

    hooks = [module.register_forward_pre_hook(begins) for module in causal_lm.modules()]
    hooks += [module.register_forward_hook(ends, always_call=True) for module in causal_lm.modules()]
    try:
        with _Listening(running) as listening:
            yield listening.calls
    finally:
        for hook in hooks:
            hook.remove()
