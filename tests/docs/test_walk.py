"""A newcomer's walk by the pages alone: train, look, measure, export, own environment, own questions, compare.

The commands are those of the pages, with overrides that make them short.
"""

import re
from pathlib import Path

import pytest
from peft import AutoPeftModelForCausalLM

from lightning_mem1.cli.main import main as mem1
from pages import ROOT, blocks, commands

DOCS = ROOT / "docs"
FIRST_RUN = DOCS / "tutorials" / "first_run.md"
SHORT = {
    "fit": "--data.num_rl_steps=1 --data.tasks_per_step=1 --data.group_size=2 --data.num_val_tasks=2 "
    "--trainer.logger=false",
    "play": "",
    "evaluate": "--tasks=1 --trainer.logger=false",
    "export": "",
}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with the experiments and nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    return tmp_path


def walk(page: Path, command: str, *more: str) -> None:
    """Run the first command of a page of that name, shortened."""
    words = next(words for words in commands(page) if words[1] == command)
    assert mem1([*words[1:], *SHORT[command].split(), *more]) == 0


@pytest.mark.slow
def test_a_first_run_leaves_what_its_tutorial_says_and_can_be_played_measured_and_exported(here, capsys):
    (words,) = [words for words in commands(FIRST_RUN) if "2" in words]
    assert mem1([*words[1:], "--trainer.logger=false"]) == 0
    sentence = FIRST_RUN.read_text().split("A run leaves these")[1].split("When an episode failed")[0]
    said = set(re.findall(r"`([\w.]+)/?`", sentence)) - {"n"}
    assert {path.name for path in (here / "runs" / "webshop" / "0").iterdir()} == said
    assert "step    2/2" in capsys.readouterr().out
    assert "<script" in (here / "runs/webshop/0/transcripts/val_00002.html").read_text()
    walk(FIRST_RUN, "play")
    assert "turn" in capsys.readouterr().out
    walk(FIRST_RUN, "evaluate")
    assert (here / "runs" / "webshop" / "evaluate").is_dir()
    walk(FIRST_RUN, "export")
    assert AutoPeftModelForCausalLM.from_pretrained("exported").peft_config["default"].r == 16
    assert AutoPeftModelForCausalLM.from_pretrained("runs/webshop/0/adapter").peft_config["default"].r == 16


@pytest.mark.slow
def test_an_environment_of_ones_own_is_trained_as_its_tutorial_says(here):
    page = DOCS / "tutorials" / "your_own_environment.md"
    for block in [*blocks(page, "python"), *blocks(page, "yaml")]:
        if block.file:
            Path(block.file).write_text(block.text)
    walk(page, "fit")
    assert list((here / "runs" / "boutique" / "0" / "transcripts").glob("*.html"))
    walk(page, "evaluate")


@pytest.mark.slow
def test_questions_of_ones_own_are_trained_on_as_the_page_says(here):
    page = DOCS / "how-to" / "your_own_questions.md"
    names: dict = {}
    for block in blocks(page, "python"):
        exec(compile(block.text, page.name, "exec"), names)
    walk(page, "fit")
    text = (here / "runs" / "qa" / "0" / "transcripts" / "train_00001.txt").read_text()
    assert "which river runs through" in text.lower()


@pytest.mark.slow
def test_memory_modes_are_compared_as_the_tutorial_says(here, capsys):
    walk(DOCS / "tutorials" / "comparing_memory_modes.md", "evaluate", "--objectives=1")
    shown = capsys.readouterr().out
    assert all(mode in shown for mode in ("mem1", "full", "window"))
    (table,) = (here / "runs" / "qa" / "evaluate").rglob("results.csv")
    assert [line.split(",")[:2] for line in table.read_text().splitlines()[1:4]] == [
        ["mem1", "1"],
        ["full", "1"],
        ["window", "1"],
    ]
