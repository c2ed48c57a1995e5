import os
import re
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lightning_mem1

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lightning_mem1"
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)


def setup_cfg() -> ConfigParser:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def requirements() -> list[Requirement]:
    config = setup_cfg()
    lines = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    return [Requirement(line) for block in lines for line in block.split("\n") if line]


def constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_readme_has_two_commands_that_start_from_nothing_and_differ_only_in_their_last_step():
    train, test = [command.split(" && ") for command in COMMANDS]
    assert train[:-1] == test[:-1]
    assert train[:2] == ["python3 -m venv .venv", ". .venv/bin/activate"]
    assert (train[-1], test[-1]) == (
        "python -m lightning_mem1.fit experiments/webshop.yaml",
        "OMP_NUM_THREADS=1 python -m pytest -q",
    )


def test_every_file_that_the_readme_and_contributing_name_exists():
    text = README + (ROOT / "CONTRIBUTING.md").read_text()
    linked = set(re.findall(r"\]\((?!https?:)([^)#]+)", text))
    commanded = set(re.findall(r"\b(?:experiments|tests|docs)/[\w/.-]*\w\.\w+", text)) | {"constraints.txt"}
    modules = {f"{name.replace('.', '/')}.py" for name in re.findall(r"-m (lightning_mem1(?:\.\w+)+)", text)}
    assert [name for name in sorted(linked | commanded | modules) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("line", constraints())
def test_a_constraint_is_one_exact_public_version(line):
    assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line), f"expected name==version, got {line!r}"


def test_every_requirement_has_one_constraint_and_it_lies_in_its_range():
    pinned = [line.split("==") for line in constraints()]
    exact = {str(canonicalize_name(name)): number for name, number in pinned}
    assert len(exact) == len(pinned), "a package is constrained twice"
    wrong = [str(need) for need in requirements() if not need.specifier.contains(exact[canonicalize_name(need.name)])]
    assert wrong == []
    assert f"torch=={exact['torch']}" in README


def test_every_folder_with_modules_is_a_package_and_every_other_file_is_packed():
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []
    patterns = setup_cfg()["options.package_data"]["lightning_mem1"].split()
    packed = {path for pattern in patterns for path in PACKAGE.glob(pattern.replace("/**", "/**/*"))}
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert [str(path.relative_to(ROOT)) for path in files - packed if path.suffix != ".py"] == []


def test_the_installed_version_is_that_of_the_package():
    try:
        installed = version("lightning-mem1")
    except PackageNotFoundError:
        pytest.skip("lightning-mem1 runs from its folder and is not installed")
    assert installed == lightning_mem1.__version__


def test_ci_is_an_executable_script():
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
