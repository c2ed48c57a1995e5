"""The experiments of the package: found by name from any folder, listed, and copied out."""

from pathlib import Path

import pytest
import yaml

from lightning_mem1.cli import alone, experiments
from lightning_mem1.cli.main import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def failure(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


def test_every_yaml_of_the_folder_has_a_name():
    folder = ROOT / "experiments"
    found = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")}
    assert {"webshop", "qa", "claim/qa", "ablations/layouts", "warmstart"} <= set(experiments.names()) == found
    assert experiments.folder() == folder


@pytest.mark.parametrize(("name", "lr", "steps"), [("webshop", 3e-4, 60), ("claim/qa", 5e-4, 40)])
def test_a_command_takes_the_name_of_an_experiment_from_any_folder(name, lr, steps, capsys):
    assert main(["fit", name, "--print_config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["model"]["lr"], shown["data"]["init_args"]["num_rl_steps"]) == (lr, steps)


@pytest.mark.parametrize("file", ["webshop", "webshop.yaml"])
def test_a_file_of_the_current_folder_wins(file, capsys):
    Path(file).write_text("model: {lr: 0.25}\n")
    assert main(["fit", "webshop", "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["lr"] == 0.25


def test_a_folder_of_the_same_name_hides_no_experiment():
    Path("webshop").mkdir()
    assert experiments.found("webshop") == str(ROOT / "experiments" / "webshop.yaml")


def test_a_name_leads_to_no_other_file():
    (Path.cwd() / "secret.yaml").write_text("model: {}\n")
    inner = Path("inner")
    inner.mkdir()
    away = f"../{'../' * len(ROOT.parts)}{Path.cwd().relative_to('/')}/secret"
    assert experiments.found(f"claim/{away}") == f"claim/{away}"


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("webshp", "did you mean 'webshop'?"),
        ("claim/warmstart_bse", "did you mean 'claim/warmstart_base'?"),
        ("experiments/webshop.yaml", "did you mean 'webshop'?"),
        ("xyzzy", "mem1 experiments lists those of the package"),
    ],
)
def test_an_unknown_name_is_one_line_with_the_nearest(given, hint, capsys):
    expected = f"no such config: expected a YAML file or the name of an experiment, got '{given}'; {hint}"
    assert failure(capsys, "fit", given) == expected


def test_the_list_has_every_experiment_under_its_command_with_its_first_line(capsys):
    assert main(["experiments"]) == 0
    fit, warmstart = capsys.readouterr().out.split("mem1 warmstart NAME:\n")
    assert fit.startswith("mem1 fit NAME, also with evaluate, play, export and serve:\n")
    rows = dict(line.split(maxsplit=1) for line in [*fit.splitlines()[1:], *warmstart.splitlines()] if line[:2] == "  ")
    assert sorted(rows) == experiments.names()
    assert rows["webshop"] == "Train a constant-memory shopper on a laptop: two CPU cores, everything offline."
    assert "  claim/warmstart_base " in warmstart and "  claim/qa " in fit and "  warmstart " in warmstart


def test_an_experiment_is_copied_to_the_current_folder_and_then_wins(capsys):
    assert main(["experiments", "copy", "claim/qa"]) == 0
    assert capsys.readouterr().out == "wrote qa.yaml\n"
    assert Path("qa.yaml").read_bytes() == (ROOT / "experiments" / "claim" / "qa.yaml").read_bytes()
    assert experiments.found("qa") == "qa.yaml"


def test_an_experiment_is_copied_to_a_new_name_or_into_a_folder(capsys):
    Path("configs").mkdir()
    assert main(["experiments", "copy", "webshop", "new/shop.yaml"]) == 0
    assert main(["experiments", "copy", "webshop", "configs"]) == 0
    assert capsys.readouterr().out == "wrote new/shop.yaml\nwrote configs/webshop.yaml\n"


def test_nothing_is_overwritten(capsys):
    Path("webshop.yaml").write_text("mine")
    assert failure(capsys, "experiments", "copy", "webshop") == (
        "cannot copy 'webshop': expected a new file, got 'webshop.yaml', which exists; name another"
    )
    assert Path("webshop.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["webshp"], "no such experiment: expected the name of one, got 'webshp'; did you mean 'webshop'?"),
        (
            ["../../etc/passwd"],
            "no such experiment: expected the name of one, got '../../etc/passwd'; mem1 experiments l",
        ),
        ([], "no such experiment: expected the name of one, got 'nothing'; mem1 experiments lists them"),
    ],
)
def test_what_is_no_experiment_is_not_copied(arguments, message, capsys):
    assert failure(capsys, "experiments", "copy", *arguments).startswith(message)


def test_the_policy_of_an_experiment_is_served_by_its_name_unless_a_folder_has_it():
    assert alone.serve(["webshop", "--port", "0"]) is None
    Path("webshop").mkdir()
    given = alone.serve(["webshop", "--port", "0"])
    assert (given.policy, given.port, given.max_context_tokens) == ("webshop", 0, 1024)
