"""Checks of single settings: one line each on what was expected, what came and which key to set.

Every number of a class with settings is checked by `check_numbers`, by default for 0 to a billion. A class names its
other ranges once, as ``ranges`` below its settings, so a new setting is checked before anybody thinks of it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral, Real
from typing import Any, get_args, get_origin, get_type_hints

MOVED: Mapping[str, str] = {  # keys of earlier versions, and their names now
    "model.window": "model.memory.window",
    "model.rollout.note_embedding": "model.memory.note_embedding",
    "model.rollout.wire": "model.rollout.format",
    "model.optimizer": "model.optim.name",
    "model.weight_decay": "model.optim.weight_decay",
    "model.warmup_steps": "model.optim.warmup_steps",
    "model.max_grad_norm": "model.optim.max_grad_norm",
    "model.num_epochs": "model.optim.num_epochs",
    "model.num_minibatches": "model.optim.num_minibatches",
    "model.epsilon": "model.loss.clip",
    "model.epsilon_high": "model.loss.clip_high",
    "model.beta": "model.loss.kl_coef",
    "model.kl_in": "model.loss.kl_in",
    "model.kl_estimator": "model.loss.kl_estimator",
    "model.entropy_coef": "model.loss.entropy_coef",
    "model.state_loss_weight": "model.loss.state_weight",
    "model.scale_rewards": "model.credit.scale",
    "model.resample_rounds": "model.rollout.resample_rounds",
    "model.dtype": "model.compute.dtype",
    "model.quantization": "model.compute.quantization",
    "model.attention": "model.compute.attention",
    "model.kernels": "model.compute.kernels",
    "model.gradient_checkpointing": "model.compute.gradient_checkpointing",
}

DTYPES = ("float32", "bfloat16", "float16")


def check_choice(what: str, value: str, choices: Iterable[str], key: str) -> None:
    """Raise ValueError when `value`, a `what` found under `key`, is none of `choices`."""
    if value not in (choices := list(choices)):
        raise ValueError(f"unknown {what}: expected one of {', '.join(choices)}, got '{value}'; set {key}")


OWN = "lightning_mem1."
MOST = 10**9  # more tokens, seconds or episodes than any run has; sums of so many stay exact


@dataclass(frozen=True)
class Range:
    """The numbers that a setting may be; nan and infinity are in none.

    Attributes:
        least, most: The smallest and the largest number.
        above: The setting is more than `least`, not `least` itself.
        below: The setting is less than `most`.
    """

    least: float = 0
    most: float = MOST
    above: bool = False
    below: bool = False

    @property
    def lower(self) -> str:
        """``at least 1``"""
        return f"{'more than' if self.above else 'at least'} {self.least:,}"

    @property
    def upper(self) -> str:
        """``at most 1``"""
        return f"{'less than' if self.below else 'at most'} {self.most:,}"


Ranges = Mapping[str, Range]  # name of a setting -> what it may be
SEED = Range(0, 2**32 - 1)  # what numpy takes
SHARE = Range(0, 1)  # a part of something, a probability
POSITIVE = Range(0, above=True)
ANY_SIGN = Range(-MOST)
RATE = Range(0, 1e300)  # of learning: one that is too large shows in the weights, which are checked
PORT = Range(0, 2**16 - 1)
TIMEOUT_S = Range(0, 10**6, above=True)  # what every clock of the system can wait for
RETRIES = Range(0, 100)  # pauses double from one to the next


def check_least(key: str, value: float | None, least: float) -> None:
    """Raise ValueError when a number is below the least that it may be, or too large; None is no limit and passes."""
    if value is not None:
        check_number(key, value, Range(least))


def check_number(key: str, value: Any, allowed: Range) -> None:
    """Raise ValueError when a value is no number, or not in the range that it may be in.

    >>> check_number("model.lr", -1, Range())
    Traceback (most recent call last):
        ...
    ValueError: model.lr too small: expected at least 0, got -1; set model.lr
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"wrong value for '{key}': expected a number, got {_shown(value)}; set {key}")
    _check_range(key, value, allowed)


def _check_range(key: str, value: Any, allowed: Range) -> None:
    if value < allowed.least or (allowed.above and value == allowed.least):
        raise ValueError(f"{key} too small: expected {allowed.lower}, got {_shown(value)}; set {key}")
    if value > allowed.most or (allowed.below and value == allowed.most):
        raise ValueError(f"{key} too large: expected {allowed.upper}, got {_shown(value)}; set {key}")
    if value != value:
        raise ValueError(f"{key} is no number: expected {allowed.lower}, got nan; set {key}")


def check_numbers(key: str, kind: type, given: Mapping[str, Any], ranges: Ranges | None = None) -> None:
    """Check every number among the settings of a class, those inside of groups, lists and dicts too.

    Args:
        key: Where the class is set, such as ``model.optim``; empty for none.
        kind: A dataclass, or a class whose `__init__` takes the settings. Its ``ranges``, and those of its bases, say
            which numbers a setting may be; a setting without one is from 0 to a billion, unless the class is another
            package's, which knows best.
        given: The settings by name; others are left alone.
        ranges: In place of the class's own.

    Raises:
        ValueError: one line on what was expected, what came and which key to set.
    """
    found = _ranges(kind) if ranges is None else ranges
    checks_all = ranges is not None or kind.__module__.startswith(OWN)
    for name, types in _types(kind).items():
        if name in given and (name in found or checks_all):
            _check(f"{key}.{name}".lstrip("."), given[name], types, found.get(name, Range()))


def _ranges(kind: type) -> Ranges:
    """Those of a class and of its bases."""
    return {name: each for base in reversed(kind.__mro__) for name, each in vars(base).get("ranges", {}).items()}


def _check(key: str, value: Any, types: frozenset[Any], allowed: Range) -> None:
    """Check a value of a setting that may be of these types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        check_numbers(key, type(value), vars(value))
    elif isinstance(value, Mapping) and types & {dict, Mapping}:
        for name, each in value.items():
            _check(f"{key}.{name}", each, types, allowed)
    elif isinstance(value, list | tuple) and types & {list, tuple, Sequence}:
        for number, each in enumerate(value):
            _check(f"{key}[{number}]", each, types, allowed)
    elif types & {int, float} and not isinstance(value, tuple(types - {int, float, Sequence})):
        check_number(key, value, allowed)
        if float not in types and not isinstance(value, Integral):
            raise ValueError(f"wrong value for '{key}': expected a whole number, got {_shown(value)}; set {key}")


@lru_cache(maxsize=256)
def _types(kind: type) -> dict[str, frozenset[Any]]:
    """The settings of a class by name, with every type that occurs in what they may be.

    ``turns: int | list[int] | None`` -> ``{"turns": {int, list, NoneType}}``.
    """
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        hints = {each.name: hints[each.name] for each in dataclasses.fields(kind) if each.init}
    else:
        hints = get_type_hints(kind.__init__)  # type: ignore[misc]
    return {name: frozenset(_leaves(hint)) for name, hint in hints.items() if name != "return"}


def _leaves(hint: Any) -> Iterator[type]:
    for each in (hint, get_origin(hint)):
        if isinstance(each, type) and each is not Any:
            yield each
    for each in get_args(hint):
        yield from _leaves(each)


def _shown(value: Any) -> str:
    """A value as somebody has written it, however long it is."""
    if value is None:
        return "null"
    if isinstance(value, int) and abs(value) >= 10**15:
        return f"{float(value):g}" if value.bit_length() < 1000 else f"a number of {value.bit_length():,} bits"
    return f"{value!r:.80}"


def resolve_seed(seed: int | None) -> int:
    """The given seed, else the one of `lightning.seed_everything`, else 0."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
