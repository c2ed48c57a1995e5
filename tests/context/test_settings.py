"""From a setting to a memory mode: words, dotted names, their own settings, and what is wrong with them in one line."""

import re
import sys
from dataclasses import dataclass

import pytest

from lightning_mem1.context.memory import MemoryMode, whole
from lightning_mem1.context.modes import MODES
from lightning_mem1.context.modes.amem import Amem
from lightning_mem1.context.modes.mem1 import Mem1
from lightning_mem1.context.modes.window import Window
from lightning_mem1.context.settings import memory_mode
from lightning_mem1.types import Turn

OWN = '''
from dataclasses import dataclass

from lightning_mem1.context.memory import MemoryMode, whole


@dataclass(frozen=True)
class Plan(MemoryMode):
    first: int = 1

    def context(self, turns):
        return whole([*turns[: self.first], *turns[self.first :][-1:]])


def plan(turns):
    """The first turn, and the last one."""
    return whole([*turns[:1], *turns[1:][-1:]])


def pair(turns, window):
    return []


class NoMode:
    pass


class Unfinished(MemoryMode):
    pass


@dataclass(frozen=True)
class Picky(MemoryMode):
    def __post_init__(self):
        raise KeyError("colour")

    def context(self, turns):
        return []


number = 3
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module `my_file` that Python finds; returns its path."""
    path = tmp_path / "my_file.py"
    path.write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_file", raising=False)
    yield path
    sys.modules.pop("my_file", None)


def line(setting, key: str = "model.memory") -> str:
    with pytest.raises(ValueError) as caught:
        memory_mode(setting, key)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_word_its_own_settings_the_class_and_the_mode_itself_mean_the_same():
    assert memory_mode("window") == memory_mode({"mode": "window"}) == memory_mode(Window) == Window(2)
    assert memory_mode({"mode": "window", "window": 3}) == memory_mode(Window(3)) == Window(3)
    assert memory_mode({"mode": "amem", "window": 1, "note_embedding": "x"}) == Amem(1, "x")


@pytest.mark.parametrize("word", MODES)
def test_every_word_is_what_its_mode_goes_by_and_its_settings_make_it_again(word):
    mode = memory_mode(word)
    assert mode.name == str(mode) == word and memory_mode(mode.settings) == mode
    assert Mem1().settings == {"mode": "mem1"} and Window(3).settings == {"mode": "window", "window": 3}


def test_a_dotted_name_is_a_class_or_a_function_of_a_file_outside_of_the_package(own):
    turns = [Turn([10 + t], [0.0], [20 + t]) for t in range(4)]
    for setting in ("my_file.Plan", "my_file.plan", {"mode": "my_file.Plan", "first": 1}):
        mode = memory_mode(setting)
        assert mode.context(turns) == whole([turns[0], turns[3]]) and not mode.staged
        assert memory_mode(mode.settings) == mode
    mode = memory_mode({"mode": "my_file.Plan", "first": 2})
    assert mode.context(turns) == whole([turns[0], turns[1], turns[3]])
    assert mode.name == "my_file.Plan" and mode.settings == {"mode": "my_file.Plan", "first": 2}
    assert memory_mode("my_file.plan").name == "my_file.plan"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "mem2",
            "unknown memory mode: expected one of mem1, full, window, none, summary, amem, compaction, masked, fold, "
            "multiscale, edit, recall, recorded, got 'mem2'; set model."
            "memory, also to a dotted name such as my_file.plan",
        ),
        ({"window": 3}, "memory without a mode: expected a word or {mode: ..., ...}, got {'window': 3}; set model.mem"),
        (
            {"mode": "window", "windo": 3},
            "memory mode 'window' has no setting 'windo': expected window; leave model.memory.windo out",
        ),
        (
            {"mode": "mem1", "window": 3},
            "memory mode 'mem1' has no setting 'window': expected no settings; leave model.memory.window out",
        ),
        ({"mode": "window", "window": "x"}, "wrong value for 'model.memory.window': expected int, got 'x'; set it"),
        ({"mode": "window", "window": True}, "wrong value for 'model.memory.window': expected int, got True; set it"),
        (
            {"mode": "amem", "window": 0},
            "model.memory.window too small: expected at least 1, got 0; set model.memory.window",
        ),
        (
            None,
            "not a memory mode: expected a subclass of lightning_mem1.context.memory.MemoryMode, or a function from",
        ),
        (
            3,
            "not a memory mode: expected a subclass of lightning_mem1.context.memory.MemoryMode, or a function from tu",
        ),
        ("nowhere.plan", "no such memory mode: expected a word, or a dotted name of what Python can import, got 'nowh"),
        ("my_file.nowhere.plan", "no such memory mode: expected a word, or a dotted name of what Python can import, g"),
        ("my_file.plam", "no such memory mode: expected 'plam' in '{path}', got none; did you mean 'my_file.plan'?"),
        ("my_file.NoMode", "not a memory mode: expected a subclass of lightning_mem1.context.memory.MemoryMode, or a"),
        ("my_file.number", "not a memory mode: expected a subclass of lightning_mem1.context.memory.MemoryMode, or a"),
        (
            {"mode": "my_file.plan", "first": 2},
            "memory mode 'my_file.plan' has no setting 'first': expected no settings; leave model.memory.first out",
        ),
        (
            "my_file.pair",
            "memory mode 'pair' cannot be called: expected a function of one argument, the turns so far, got "
            "pair(turns, window); set model.memory",
        ),
        (
            "my_file.Unfinished",
            "cannot make memory mode 'my_file.Unfinished': TypeError: Can't instantiate abstract class Unfinished with",
        ),
        ("my_file.Picky", "cannot make memory mode 'my_file.Picky': KeyError: 'colour' ('{path}', line 35); set mode"),
    ],
)
def test_a_setting_that_is_no_memory_mode_is_one_line(own, setting, message):
    assert line(setting).startswith(message.replace("{path}", str(own)))


def test_the_line_names_the_key_that_holds_the_setting():
    assert line("mem2", "warmstart.memory").endswith("set warmstart.memory, also to a dotted name such as my_file.plan")
    assert "leave --memory.window out" in line({"mode": "full", "window": 1}, "--memory")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def plan(turns):\n    return [\n", "SyntaxError: '[' was never closed ('{path}', line 2)"),
        ("\n\nWIDTH = 1 / 0\n", "ZeroDivisionError: division by zero ('{path}', line 3)"),
        ("import not_installed\n", "ModuleNotFoundError: No module named 'not_installed' ('{path}', line 1)"),
        ("from my_file.inner import x\n", "ModuleNotFoundError: No module named 'my_file.inner'"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named_with_its_line(own, text, reason):
    own.write_text(text)
    said = line("my_file.plan")
    assert said.startswith(f"cannot import 'my_file', which model.memory names: {reason.replace('{path}', str(own))}")
    assert said.endswith("; fix that file")


def test_a_mode_of_ones_own_is_a_value_that_cannot_be_changed():
    @dataclass(frozen=True)
    class Own(MemoryMode):
        size: int = 4

        def context(self, turns):
            return []

    assert Own(3) == Own(3) != Own() and re.fullmatch(r"[\w.<>]+\.Own", Own().name)
    with pytest.raises(AttributeError):
        Own().size = 5
