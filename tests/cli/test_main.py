"""`mem1` itself: what it answers, how fast it gets there (by what it imports), and the two other ways to call it."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_mem1 import __version__
from lightning_mem1.cli.commands import COMMANDS
from lightning_mem1.cli.main import main

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "lightning", "transformers", "jsonargparse", "mlflow", "peft", "datasets", "omegaconf", "rich"}
EARLY = [  # what is answered before anything heavy is imported
    *(["--help"], ["--version"], [], ["fitt"], ["experiments"], ["experiments", "copy", "webshp"]),
    *([name, "--help"] for name in COMMANDS),
    *(
        ["fit", "webshop", "-h"],
        ["serve", "bundled", "--help"],
        ["fit"],
        ["fit", "nowhere"],
        ["evaluate", "nowhere.yaml"],
    ),
    *(["fit", "list.yaml"], ["play", "half.yaml"], ["fit", "key.yaml"], ["warmstart", "key.yaml"]),
    *(["export", "--ckpt_path", "x.ckpt"], ["export", "--output", "x"], ["serve", "bundled", "--prot", "1"]),
]


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], env=env, cwd=cwd, capture_output=True, text=True)


def test_help_names_every_command_with_what_it_does(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "  fit                train a policy by RL\n" in out and "  mem1 fit webshop  " in out
    assert [name for name, command in COMMANDS.items() if f"  {name} " not in out or command.about not in out] == []


def test_nothing_at_all_shows_the_help_and_is_a_mistake(capsys):
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("usage: mem1 COMMAND ...\n")


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lightning_mem1 {__version__}\n"


def test_an_unknown_command_is_answered_with_the_nearest_one(capsys):
    assert main(["evalute", "webshop"]) == 2
    assert capsys.readouterr().err == (
        "error: unknown command: expected one of init, fit, evaluate, compare, play, export, warmstart, serve, "
        "serve-retriever, serve-shop, serve-openenv, make-encyclopedia, experiments, got 'evalute'; "
        "did you mean 'evaluate'?\n"
    )


def test_what_needs_no_model_is_answered_before_anything_heavy_is_imported(tmp_path):
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "half.yaml").write_text("model: [1\n")
    (tmp_path / "key.yaml").write_text("modl: {lr: 1}\n")
    script = f"""
import sys
from lightning_mem1.cli.main import main
for arguments in {EARLY}:
    try:
        main(arguments)
    except SystemExit:  # how argparse leaves after --help
        pass
    print("imported", arguments, sorted({HEAVY} & set(sys.modules)))
"""
    done = python("-c", script, cwd=tmp_path)
    told = [line for line in done.stdout.splitlines() if line.startswith("imported")]
    assert told == [f"imported {arguments} []" for arguments in EARLY], done.stderr
    said = [re.match(r"error: ([\w ]+)", line)[1] for line in done.stderr.splitlines()]
    assert said == [
        *("unknown command", "no such experiment", "no config", "no such config", "no such config"),
        *("config must hold keys like model", "config is not YAML", "unknown key ", "unknown key "),
        *("no output", "no checkpoint", "unknown option "),
    ]
    assert list(tmp_path.iterdir()) and not (tmp_path / "runs").exists()


def test_a_config_is_named_on_the_screen_before_anything_heavy_is_imported(config):
    script = f"""
import sys
from lightning_mem1.cli import startup
from lightning_mem1.cli.commands import COMMANDS
print(startup.opened([{config!r}], COMMANDS["fit"].keys).config, sorted({HEAVY} & set(sys.modules)))
"""
    done = python("-c", script, cwd=Path(config).parent)
    assert done.stdout == f"loading {config} ...\n{config} []\n", done.stderr


@pytest.mark.parametrize("module", ["lightning_mem1.fit", "lightning_mem1"])
def test_python_m_is_the_same_as_the_console_script(module, tmp_path):
    command = [] if module.endswith("fit") else ["fit"]
    done = python("-m", module, *command, "experiments/webshp.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: no such config: expected a YAML file or the name of an experiment, got 'experiments/webshp.yaml'; "
        "did you mean 'webshop'?\n"
    )


def test_the_installed_command_finds_a_file_of_the_working_folder_as_python_m_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry and Path(entry) != tmp_path])
    (tmp_path / "median_of_mine.py").write_text("def credit(played, settings):\n    return 1 / 0\n")
    assert importlib.util.find_spec("median_of_mine") is None
    assert main(["fit", "nowhere.yaml"]) == 1
    assert "nowhere.yaml" in capsys.readouterr().err
    assert importlib.util.find_spec("median_of_mine").origin == str(tmp_path / "median_of_mine.py")
