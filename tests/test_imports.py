"""The arrows between the rooms of the package, and what importing it may not do."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lightning_mem1"

# A room imports only from the lines above its own; rooms that share a line never import each other.
ROOMS = """
types http whole_file checks
text notes
memory guard
wire places
conformance
layouts
advantages losses
algorithms screening shaping internal_state
scoring metrics
retrieval
envs.retrieval
envs
tasks
policy
engine
env_steps
rollout collator
passes optimizers
snapshot settings update_stats
objective
credit gradients
mismatch
module datamodule
qa_data
warmstart
expert
redaction
reports run_logger provenance agent
callbacks
player horizon
sharding memory_estimate
errors
command
command_line
fit evaluate sft play export
engine.serve
"""
LEVEL = {room: level for level, line in enumerate(ROOMS.split("\n")) for room in line.split()}
MODULES = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def room(module: str) -> str:
    """`lightning_mem1.policy.loading` is in room `policy`; each environment is a room of its own: `envs.webshop`."""
    parts = module.removesuffix(".__init__").split(".")[1:]
    if parts == ["engine", "serve"]:  # a command, which stands above its room
        return "engine.serve"
    return ".".join(parts[: 2 if parts[:1] == ["envs"] else 1])


def imported(module: str) -> set[str]:
    """Names of the package that are imported anywhere in a file, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            folder = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*folder, *filter(None, [node.module])])
            names |= {f"{source}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("lightning_mem1.")}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_room_imports_only_from_rooms_above_it(module):
    here = room(module)
    for there in {room(name) for name in imported(module)} - {here, "__version__"}:
        top_here, top_there = (name if name in LEVEL else name.split(".")[0] for name in (here, there))
        assert top_there in LEVEL, f"{module} imports {there}, which is no room of the list above: give it a line"
        assert top_here in LEVEL, f"{module} is in no room of the list above: give it a line"
        assert LEVEL[top_there] < LEVEL[top_here], f"{module} imports from {there}, which is not above {here}"


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
