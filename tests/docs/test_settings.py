"""The settings page is what the code says, and says it of every setting."""

import importlib.util
import re
import sys
from dataclasses import dataclass, field
from typing import Literal

from jsonargparse import ArgumentParser

from lightning_mem1.training.module import Mem1Module
from pages import ROOT

PAGE = ROOT / "docs" / "reference" / "settings.md"


def generator():
    """docs/settings.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_settings", ROOT / "docs" / "settings.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # its dataclasses look it up there
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_code_says():
    assert PAGE.read_text() == generator().page(), "python docs/settings.py writes it"


def test_every_setting_of_the_model_that_a_command_takes_is_on_the_page():
    parser = ArgumentParser()
    parser.add_class_arguments(Mem1Module, "model")
    flat = vars(parser.get_defaults().as_flat())
    taken = {key.replace(".init_args.", ".") for key in flat if not key.endswith(("__", ".class_path"))}
    listed = set(re.findall(r"^\| `(model[\w.]*)`", PAGE.read_text(), re.MULTILINE))
    assert len(taken) > 50 and taken - listed == set()


def test_no_setting_is_without_a_meaning():
    rows = re.findall(r"^\| `(?!trainer)[\w.\[\]]+` \|.*$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) > 150
    assert [row for row in rows if row.count("|") < 4 or row.endswith("| |")] == []


@dataclass
class Inner:
    """A group.

    Args:
        wait_s: How long.
    """

    wait_s: float = 1.5


@dataclass
class Outer:
    """Settings.

    Args:
        kind: Which | one.
        inner: A group.
        max_tokens: The most.
        names: Some.
    """

    kind: Literal["a", "b"] = "a"
    inner: Inner = field(default_factory=Inner)
    max_tokens: int | None = None
    names: list[str] = field(default_factory=list)


def test_a_class_becomes_rows_with_type_default_unit_and_meaning():
    module = generator()
    lines = module.table(module.settings(Outer, "x")).splitlines()
    assert lines[2:] == [
        "| `x.kind` | one of `a`, `b` | `a` | | Which \\| one. |",
        "| `x.inner.wait_s` | number | `1.5` | s | How long. |",
        "| `x.max_tokens` | whole number or null | `null` | tokens | The most. |",
        "| `x.names` | list of text | `[]` | | Some. |",
    ]
