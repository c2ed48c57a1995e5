"""What is private to Lightning is touched in one file."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import lightning.pytorch
import pytest

import lightning_mem1

PACKAGE = Path(lightning_mem1.__file__).parent
ALLOWED = PACKAGE / "training" / "lightning_internals.py"
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != ALLOWED]
DEFINED = re.compile(r"(?:def |class |self\.|cls\.)(_[a-z]\w*)")
LIGHTNING = Path(lightning.pytorch.__file__).parent
THEIRS = {name for path in LIGHTNING.rglob("*.py") for name in DEFINED.findall(path.read_text())}
OURS = {name for path in FILES for name in DEFINED.findall(path.read_text())}


def private(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and bool(re.fullmatch(r"_[a-z]\w*", node.attr))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_file_names_an_attribute_that_is_private_to_lightning(path):
    source = path.read_text()
    found = {node.attr for node in ast.walk(ast.parse(source)) if private(node)}
    found |= set(re.findall(r"[gs]etattr\([^,]+, \"(_[a-z]\w*)\"", source))
    assert not found & (THEIRS - OURS), f"{path.name}: give it a function in training/lightning_internals.py"


def subclasses() -> list[type]:
    """The package's classes that are made of a class of Lightning."""
    modules = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in FILES]
    found = [kind for name in modules for kind in vars(importlib.import_module(name)).values() if inspect.isclass(kind)]
    ours = {kind for kind in found if kind.__module__.startswith("lightning_mem1.")}
    ours = {kind for kind in ours if Path(inspect.getfile(kind)) != ALLOWED}
    return [kind for kind in ours if any(base.__module__.startswith("lightning.") for base in kind.__mro__)]


def test_no_class_made_of_lightnings_touches_what_that_one_keeps_private():
    kinds = subclasses()
    assert {"Mem1Module", "ShardedBase", "ResumableMLflowLogger", "RLCheckpoint"} <= {kind.__name__ for kind in kinds}
    for kind in kinds:
        bases = [base for base in kind.__mro__ if base.__module__.startswith("lightning.")]
        theirs = {name for base in bases for name in DEFINED.findall(inspect.getsource(base))}
        touched = set(re.findall(r"self\.(_[a-z]\w*)", inspect.getsource(kind)))
        assert not touched & theirs, f"{kind.__name__}: give it a function in training/lightning_internals.py"
