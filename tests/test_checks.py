"""Every number that a config can set is checked: nan, infinity, null, a text, too small, too large."""

import importlib
import inspect
import math
import pkgutil
import sys
from dataclasses import fields, is_dataclass
from fractions import Fraction

import numpy
import pytest
from lightning.pytorch import Callback, Trainer

import lightning_mem1
from lightning_mem1 import checks
from lightning_mem1.checks import MOST, Range, check_number, check_numbers
from lightning_mem1.context.modes import MODES
from lightning_mem1.context.settings import memory_mode
from lightning_mem1.data.qa import QAData
from lightning_mem1.data.task_data import TaskDataModule
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.training.plain_settings import from_plain
from lightning_mem1.training.settings import GROUPS
from lightning_mem1.training.trainer import TRAINER_DEFAULTS, TRAINER_RANGES
from lightning_mem1.warmstart.settings import WarmStart


def every_class():
    """The classes of the package."""
    for found in pkgutil.walk_packages(lightning_mem1.__path__, "lightning_mem1."):
        if found.name != "lightning_mem1.__main__":
            module = importlib.import_module(found.name)
            yield from (
                each for _, each in inspect.getmembers(module, inspect.isclass) if each.__module__ == found.name
            )


CLASSES = list(every_class())
DATA = [each for each in CLASSES if issubclass(each, TaskDataModule)]
CALLBACKS = [each for each in CLASSES if issubclass(each, Callback)]
NEEDED = {"sources": {}, "retriever": None, "agent": len, "source": None}  # arguments that have no default


def can_be_made(kind):
    arguments = inspect.signature(kind).parameters.values()
    without = {each.name for each in arguments if each.default is each.empty and each.kind is not each.VAR_KEYWORD}
    return without <= NEEDED.keys()


SOURCES = [
    each for each in CLASSES if all(hasattr(each, name) for name in ("size", "task", "env")) and can_be_made(each)
]


def numbers(kind):
    """Names of the numeric settings of a class, with what they may be."""
    ranges = checks._ranges(kind)
    for name, types in checks._types(kind).items():
        if types & {int, float}:
            yield name, types, ranges.get(name, Range())


def groups(kind, key):
    """A class and every group of settings inside of it, with its key."""
    yield key, kind
    for name, types in checks._types(kind).items():
        for each in types:
            if is_dataclass(each) and any(types & {int, float} for _, types, _ in numbers(each)):
                yield from groups(each, f"{key}.{name}")


def bad_values(types, allowed):
    """What a setting of these types cannot be."""
    inside = [
        math.nan,
        math.inf,
        -math.inf,
        10**30,
        -(10**30),
        2**63,
        "x",
        True,
        allowed.most * 2 + 1,
        allowed.least - 1,
    ]
    inside += [allowed.least] * allowed.above + [allowed.most] * allowed.below
    inside += [] if type(None) in types else [None]
    inside += [] if float in types else [0.5]
    return [each for each in inside if not (isinstance(each, str) and str in types) and not fits(each, allowed)]


def fits(value, allowed):
    return isinstance(value, int) and value is not True and allowed.least < value < allowed.most


def refused(make, name, value):
    with pytest.raises(ValueError) as caught:
        make(value)
    said = str(caught.value)
    assert "\n" not in said and len(said) < 250 and name in said and "expected" in said, said
    return said


SETTINGS = [
    (key, kind, name, types, allowed)
    for top, first in [
        ("model", Mem1Module),
        ("warmstart", WarmStart),
        *((f"data {each.__name__}", each) for each in DATA),
    ]
    for key, kind in groups(first, top)
    for name, types, allowed in numbers(kind)
]


def made(top, path, kind, name, value):
    """Makes the outermost class with one setting of a group inside of it."""
    if top == "model":
        settings = {name: value} if not path else {path[0]: nested(path[1:], name, value)}
        return Mem1Module(policy="none", **settings)
    if top == "warmstart":
        rest = {"Stage": {"steps": 1}, "WarmStart": {"output": "none"}}.get(kind.__name__, {})
        built = kind(**{**rest, name: value})
        return WarmStart("none", **inside(path, built)) if path else built
    whole = next(each for each in DATA if top == f"data {each.__name__}")
    return whole(**needed(whole), **({name: value} if not path else {path[0]: kind(**{name: value})}))


def needed(kind):
    """What the arguments without a default may be."""
    arguments = inspect.signature(kind).parameters.values()
    return {each.name: NEEDED[each.name] for each in arguments if each.default is each.empty and each.name in NEEDED}


def nested(path, name, value):
    return {name: value} if not path else {path[0]: nested(path[1:], name, value)}


def inside(path, built):
    """Keyword arguments of WarmStart that hold a group of its own somewhere."""
    if len(path) == 1:
        return {path[0]: [built] if path[0] == "stages" else built}
    types = checks._types(WarmStart)[path[0]]
    outer = next(each for each in types if is_dataclass(each))
    for part in path[1:-1]:
        outer_of_next = next(each for each in checks._types(outer)[part] if is_dataclass(each))
        built = outer_of_next(**{path[-1]: built})
        return {path[0]: outer(**{part: built})}
    return {path[0]: outer(**{path[-1]: built})}


@pytest.mark.parametrize(
    ("key", "kind", "name", "types", "allowed"), SETTINGS, ids=[f"{key}.{name}" for key, _, name, _, _ in SETTINGS]
)
def test_every_number_of_a_config_is_refused_where_it_cannot_be(key, kind, name, types, allowed):
    top, _, path = key.partition(".")
    for value in bad_values(types, allowed):
        if kind is WarmStart or top != "warmstart" or not isinstance(value, str):
            refused(lambda each: made(top, path.split(".") if path else [], kind, name, each), name, value)


def test_the_walk_finds_the_settings_that_there_are():
    found = {f"{key}.{name}" for key, _, name, _, _ in SETTINGS}
    assert len(found) > 100
    assert {
        "model.lr",
        "model.optim.num_epochs",
        "model.lora.alpha",
        "model.engine.server.timeout_s",
        "model.rollout.env_timeout_s",
        "data QAData.objectives",
        "data QAData.web.num_retries",
        "data WebShopData.max_turns",
        "data TaskDataModule.group_size",
        "warmstart.data.shop.skill.choice",
        "warmstart.stages.steps",
    } <= found
    assert {f"model.{name}" for name, kind in GROUPS.items() if any(numbers(kind))} <= {key for key, *_ in SETTINGS}


@pytest.mark.parametrize("kind", [*CALLBACKS, *SOURCES], ids=lambda kind: kind.__name__)
def test_every_number_of_a_callback_and_of_a_source_is_refused_where_it_cannot_be(kind):
    for name, types, allowed in numbers(kind):
        for value in bad_values(types, allowed):
            refused(lambda each, name=name: kind(**{**needed(kind), name: each}), name, value)


def test_the_walk_finds_the_callbacks_and_sources_that_there_are():
    assert {"RLCheckpoint", "TranscriptCallback", "ProgressCallback", "FailuresCallback"} <= {
        c.__name__ for c in CALLBACKS
    }
    assert {"ShopTasks", "EncyclopediaTasks"} <= {each.__name__ for each in SOURCES}


@pytest.mark.parametrize("mode", [each for each in MODES.values() if fields(each)], ids=lambda mode: mode.word)
def test_every_number_of_a_memory_mode_is_refused_where_it_cannot_be(mode):
    for name, types, allowed in numbers(mode):
        for value in bad_values(types, allowed):
            setting = {"mode": mode.word, name: value}
            refused(lambda each: (memory_mode(each), Mem1Module(policy="none", memory=each)), name, setting)


def test_every_number_of_the_trainer_is_refused_where_it_cannot_be():
    check_numbers("trainer", Trainer, TRAINER_DEFAULTS, TRAINER_RANGES)
    for name in ("max_epochs", "val_check_interval", "devices", "limit_val_batches", "log_every_n_steps", "num_nodes"):
        for value in (math.nan, math.inf, -2, 10**30):
            refused(
                lambda each, name=name: check_numbers("trainer", Trainer, {name: each}, TRAINER_RANGES), name, value
            )


@pytest.mark.parametrize(
    ("value", "allowed", "message"),
    [
        (math.nan, Range(1), "x is no number: expected at least 1, got nan; set x"),
        (math.inf, Range(0, 1), "x too large: expected at most 1, got inf; set x"),
        (-math.inf, Range(), "x too small: expected at least 0, got -inf; set x"),
        (0, Range(0, above=True), "x too small: expected more than 0, got 0; set x"),
        (1.0, Range(0, 1, below=True), "x too large: expected less than 1, got 1.0; set x"),
        (2**63, Range(), "x too large: expected at most 1,000,000,000, got 9.22337e+18; set x"),
        (None, Range(), "wrong value for 'x': expected a number, got null; set x"),
        ("1", Range(), "wrong value for 'x': expected a number, got '1'; set x"),
        (True, Range(), "wrong value for 'x': expected a number, got True; set x"),
        (1j, Range(), "wrong value for 'x': expected a number, got 1j; set x"),
    ],
)
def test_a_number_that_cannot_be_says_what_was_expected_and_what_came(value, allowed, message):
    with pytest.raises(ValueError) as caught:
        check_number("x", value, allowed)
    assert str(caught.value) == message


def test_a_number_too_long_to_be_printed_is_named_by_its_length():
    with pytest.raises(ValueError, match="x too large: expected at most 1,000,000,000, got a number of 16,610 bits"):
        check_number("x", 10**5000, Range())


@pytest.mark.parametrize("value", [0, 0.0, 1, 1.5, MOST, sys.float_info.min, numpy.float32(0.5), Fraction(1, 3)])
def test_a_number_that_can_be_is_taken(value):
    check_number("x", value, Range())


def test_numbers_inside_of_lists_dicts_and_groups_are_checked_too():
    for settings, key in [
        ({"objectives": [2, -1]}, "data.objectives[1]"),
        ({"objectives": {1: 2, 5: 0}}, "data.objectives.5"),
        ({"weights": {"a": math.nan}}, "data.weights.a"),
        ({"hops": [4]}, "data.hops[0]"),
    ]:
        with pytest.raises(ValueError, match=rf"^{key.replace('[', '.').replace(']', '.')} "):
            QAData(**settings)


def test_settings_of_somebody_elses_class_are_theirs_to_check():
    class Theirs:
        def __init__(self, offset: int = -1, far: float = math.inf) -> None:
            check_numbers("theirs", Theirs, locals())

    Theirs()
    assert from_plain(GROUPS["optim"], {"weight_decay": 0}, "model.optim").weight_decay == 0
