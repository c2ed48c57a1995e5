import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
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
COMMANDS = [" ".join(block.split()) for block in re.findall(r"```sh\n(python3 -m venv .*?)```", README, re.DOTALL)]


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


def test_vllm_has_constraints_of_its_own_because_it_pins_another_torch():
    lines = [line for line in (ROOT / "constraints-vllm.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)] == []
    exact = {str(canonicalize_name(name)): number for name, number in (line.split("==") for line in lines)}
    config = setup_cfg()
    needed = [config["options"]["install_requires"], config["options.extras_require"]["vllm"]]
    needs = [Requirement(line) for block in needed for line in block.split("\n") if line]
    known = [need for need in needs if canonicalize_name(need.name) in exact]
    assert [str(need) for need in known if not need.specifier.contains(exact[canonicalize_name(need.name)])] == []
    assert {need.name for need in known} >= {"vllm", "torch", "transformers", "lightning", "peft", "mlflow", "datasets"}


def test_every_folder_with_modules_is_a_package_and_every_other_file_is_packed():
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []
    patterns = setup_cfg()["options.package_data"]["lightning_mem1"].split()
    packed = {path for pattern in patterns for path in PACKAGE.glob(pattern.replace("/**", "/**/*"))}
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert [str(path.relative_to(ROOT)) for path in files - packed if path.suffix != ".py"] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of the checkout, built from a copy, so that the checkout stays as it is."""
    copy, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("lightning_mem1", "experiments"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    script = f"from setuptools.build_meta import build_wheel; build_wheel({str(made)!r})"
    done = subprocess.run([sys.executable, "-c", script], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = made.glob("*.whl")
    return path


def test_the_wheel_holds_every_file_of_the_package_and_every_experiment_and_nothing_else(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    experiments = {f"lightning_mem1/{path.relative_to(ROOT)}" for path in (ROOT / "experiments").rglob("*.yaml")}
    assert packed == {str(path.relative_to(ROOT)) for path in package} | experiments
    assert packed >= {
        "lightning_mem1/experiments/webshop.yaml",
        "lightning_mem1/experiments/claim/qa.yaml",
        "lightning_mem1/policy/assets/policy/model.safetensors",
        "lightning_mem1/policy/assets/marketplace/tokenizer.json",
        "lightning_mem1/evaluation/report/page.css",
        "lightning_mem1/evaluation/report/page.js",
        "lightning_mem1/environments/webshop/generated/lexicon.json",
        "lightning_mem1/py.typed",
    }


def test_the_source_archive_holds_the_tests_and_whatever_they_read(tmp_path):
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in tracked.stdout.splitlines() if (ROOT / name).is_file()]
    for name in names:
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "source" / name)
    script = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path / "source", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        found = {name.partition("/")[2] for name in packed.getnames()}
    assert sorted(set(names) - found - {".gitignore"}) == []


def test_what_the_wheel_holds_finds_its_experiments_from_an_empty_folder(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    for arguments, said in (
        (["fit", "claim/qa", "--print_config"], "loss_unit: trajectory\n"),
        (["experiments", "copy", "webshop"], "wrote webshop.yaml\n"),
    ):
        command = [sys.executable, "-m", "lightning_mem1", *arguments]
        done = subprocess.run(command, env=env, cwd=tmp_path / "empty", capture_output=True, text=True)
        assert done.returncode == 0 and said in done.stdout, done.stderr
    assert (tmp_path / "empty" / "webshop.yaml").read_bytes() == (ROOT / "experiments/webshop.yaml").read_bytes()


def test_the_console_script_is_the_main_of_the_package(wheel):
    (name,) = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("entry_points.txt")]
    assert zipfile.ZipFile(wheel).read(name).decode().split("\n")[:2] == [
        "[console_scripts]",
        "mem1 = lightning_mem1.cli.main:main",
    ]


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
