"""A new folder of one's own: what is written runs as it is, and what cannot be written is one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_mem1.cli.init import MAX_NAME, files, main, written
from lightning_mem1.cli.main import main as mem1

ROOT = Path(__file__).parents[2]


def test_the_folder_of_a_task_has_its_module_its_configs_and_a_test_and_the_next_commands_are_shown(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["safe_house"]) == 0
    names = ["gpu.yaml", "pytest.ini", "safe_house.py", "safe_house.yaml", "test_safe_house.py", "warmstart.yaml"]
    assert sorted(os.listdir("safe_house")) == names and os.listdir(".") == ["safe_house"]
    shown = capsys.readouterr().out
    assert f"wrote safe_house/: {', '.join(names)}" in shown and "mem1 fit safe_house.yaml" in shown
    assert "$" not in "".join(files("safe_house").values())
    assert "import Tasks, expert" in Path("safe_house/test_safe_house.py").read_text()


@pytest.fixture(autouse=True)
def forgotten():
    """A module of a folder that is gone is not known any more."""
    yield
    sys.modules.pop("safe_house", None)


@pytest.mark.parametrize("config", ["safe_house.yaml", "gpu.yaml"])
def test_the_configs_of_a_new_folder_are_understood(tmp_path, monkeypatch, capsys, config):
    folder = written("safe_house", tmp_path)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    assert mem1(["fit", config, "--print_config"]) == 0
    assert "class_path: safe_house.Tasks" in capsys.readouterr().out


def test_a_training_before_the_warm_start_says_that_its_policy_is_to_be_made(tmp_path, monkeypatch, capsys):
    folder = written("safe_house", tmp_path)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    assert mem1(["fit", "safe_house.yaml", "--trainer.logger=false"]) == 1
    error = capsys.readouterr().err
    assert "got './policy'; set model.policy, or make that folder with mem1 warmstart" in error


@pytest.mark.slow
def test_the_tests_of_a_new_folder_pass_as_they_are(tmp_path):
    folder = written("safe_house", tmp_path)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout[-3000:]


def test_what_is_written_is_tidy(tmp_path):
    pytest.importorskip("ruff", reason="ruff is not installed")
    folder = written("safe_house", tmp_path)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select=E,F,I,UP,B,SIM", "--line-length=120"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["1x", "my-task", "../up", "a b", "class", "_x", "größe", "", "x" * (MAX_NAME + 1)])
def test_a_name_that_is_no_modules_is_refused(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    assert main([name]) == 1
    error = capsys.readouterr().err
    assert "no name of a module: expected at most 60 letters" in error and len(error.splitlines()) == 1
    assert os.listdir(".") == []


@pytest.mark.parametrize("name", ["random", "torch", "warmstart"])
def test_a_name_that_something_else_has_is_refused(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    assert main([name]) == 1
    assert f"the name is taken: expected one that neither Python nor the package uses, got '{name}'" in (
        capsys.readouterr().err
    )
    assert os.listdir(".") == []


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_is_there_already_is_left_as_it_is(tmp_path, monkeypatch, capsys, make):
    monkeypatch.chdir(tmp_path)
    make(Path("mine"))
    assert main(["mine"]) == 1
    assert "cannot write 'mine': expected a new folder, got one that exists" in capsys.readouterr().err
    assert os.listdir(".") == ["mine"]


def test_two_at_a_time_leave_one_folder(tmp_path):
    command = [sys.executable, "-m", "lightning_mem1", "init", "mine"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.DEVNULL) for _ in range(3)]
    assert 0 in [each.wait() for each in running]
    assert os.listdir(tmp_path) == ["mine"] and len(os.listdir(tmp_path / "mine")) == 6
