"""The arrows between the rooms of the package, and what importing it may not do."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lightning_mem1"

# A room imports only from rooms that are named before it.
ROOMS = ["types", "checks", "io", "context", "policy", "engine", "rollout", "environments", "data", "training"]
ROOMS += ["evaluation", "warmstart", "tracking", "callbacks", "testing", "cli", "fit", "__main__"]
MODULES = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
PUBLIC = "lightning_mem1.__init__"  # names every room, and imports none before it is asked


def room(module: str) -> str:
    """`lightning_mem1.policy.loading` is in room `policy`."""
    return module.removesuffix(".__init__").split(".")[1]


def imported(module: str) -> set[str]:
    """Modules of the package that are imported anywhere in a file, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            folder = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*folder, *filter(None, [node.module])])
            names |= {f"{source}.{alias.name}" for alias in node.names}
    return {found for name in names if name.startswith("lightning_mem1.") for found in [_module(name)] if found}


def _module(name: str) -> str | None:
    """The module that an imported name is, or is in; None for what the package itself holds, its version."""
    while name.count("."):
        if name in MODULES:
            return name
        if f"{name}.__init__" in MODULES:
            return f"{name}.__init__" if name != "lightning_mem1" else None
        name = name.rpartition(".")[0]
    return None


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {PUBLIC}))
def test_a_room_imports_only_from_rooms_above_it(module):
    here = room(module)
    assert here in ROOMS, f"{module} is in no room of the list above: expected one of {ROOMS}"
    for there in {room(name) for name in imported(module)} - {here}:
        assert ROOMS.index(there) < ROOMS.index(here), f"{module} imports from {there}, which is not above {here}"


def test_inside_a_room_no_import_comes_back_to_where_it_began():
    inside = {m: {n for n in imported(m) if n != m and room(n) == room(m)} for m in MODULES.keys() - {PUBLIC}}
    while free := {module for module, needs in inside.items() if not needs & inside.keys()}:
        inside = {module: needs for module, needs in inside.items() if module not in free}
    assert inside == {}, "these modules import each other in a circle, or are behind one that does"


def test_the_package_has_one_sentence_about_every_room_and_at_most_twenty_entries():
    folders = [path for path in PACKAGE.iterdir() if (path / "__init__.py").exists()]
    assert sorted(path.name for path in folders) == sorted(set(ROOMS) - {p.stem for p in PACKAGE.glob("*.py")})
    for folder in folders:
        about = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert about and about.endswith("."), f"expected {folder.name}/__init__.py to say what the room is for"
    assert len([path for path in PACKAGE.iterdir() if path.name != "__pycache__"]) <= 20


def test_importing_the_package_prints_nothing_sets_nothing_and_makes_no_file(tmp_path):
    names = [name.removesuffix(".__init__") for name in sorted(MODULES)]
    script = f"""
import contextlib, importlib, io, os, pathlib
import gymnasium, lightning, peft, torch, transformers  # what they print, set and make is theirs

def surroundings():
    return set(os.environ.items()) | set(pathlib.Path.home().rglob("*"))

before, words = surroundings(), io.StringIO()
with contextlib.redirect_stdout(words), contextlib.redirect_stderr(words):
    for name in {names}:
        importlib.import_module(name)
assert words.getvalue() == "", words.getvalue()
assert surroundings() == before, surroundings() ^ before
"""
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_function_is_longer_than_forty_lines_and_none_takes_more_than_twenty_arguments():
    long = []
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = node.end_lineno - body[0].lineno + 1 if body else 0
                given = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                if lines > 40 or len([name for name in given if name not in ("self", "cls")]) > 20:
                    long.append(f"{module}.{node.name}: {lines} lines, {len(given)} arguments")
    assert long == []


def test_what_is_private_to_lightning_is_touched_in_one_file():
    owners = r"(?:trainer|logger|strategy|loop|connector|fit_loop|epoch_loop|_logger_connector|_signal_connector)"
    private = re.compile(rf"\b{owners}\._[a-z]\w*|self\._(?:mlflow_client|run_id|tracking_uri|experiment_id)\b")
    found = {
        module
        for module, path in MODULES.items()
        if private.search("\n".join(line.split("#")[0] for line in path.read_text().splitlines()))
    }
    assert found == {"lightning_mem1.training.lightning_internals"}
