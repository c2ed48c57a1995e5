"""The way of somebody who is new here, by public commands alone: train, look, own environment and questions, export."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from lightning_mem1.cli.main import main as mem1

ROOT = Path(__file__).parents[2]
SMALL = [
    "--data.tasks_per_step=1",
    "--data.group_size=2",
    "--data.num_rl_steps=1",
    "--data.num_val_tasks=2",
    "--model.engine.num_slots=4",
    "--model.rollout.max_new_tokens=32",
    "--trainer.logger=false",
    "--trainer.accelerator=cpu",
]
FOUND = [
    ("Ada Lovelace", "Ada Lovelace was born in London. She wrote about the engine of Charles Babbage."),
    ("Charles Babbage", "Charles Babbage was born in Southwark. He designed an engine."),
    ("Marie Curie", "Marie Curie was born in Warsaw. She found radium."),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("newcomer")


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)


def run(*arguments: str) -> None:
    assert mem1(list(arguments)) == 0


def test_1_a_first_training_runs_by_the_name_of_an_experiment(capsys):
    run("fit", "webshop", *SMALL)
    out = capsys.readouterr().out
    assert re.search(r"^step    1/1  reward \d", out, re.MULTILINE) and "val     1  reward" in out
    assert {path.name for path in Path("runs/webshop/0").iterdir()} >= {"adapter", "checkpoints", "transcripts"}


def test_2_its_page_shows_what_the_agent_saw_turn_by_turn(capsys):
    pages = sorted(Path("runs/webshop/0/transcripts").glob("val_*.html"))
    assert len(pages) == 2
    text = pages[-1].read_text()
    assert re.search(r"webshop/val/\d+", text) and "dropped" in text and "https://" not in text  # no network
    run("play", "webshop", "--ckpt_path=last", "--index=3")
    assert "webshop/val/3" in capsys.readouterr().out


def test_3_the_environment_of_the_readme_is_checked_and_trains():
    source = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    Path("guess.py").write_text(source)  # its last line is check_env
    config = {
        "model": {"rollout": {"prompt": "brief"}},
        "data": {"class_path": "TaskDataModule", "init_args": {"source": {"class_path": "guess.GuessTasks"}}},
    }
    Path("guess.yaml").write_text(yaml.safe_dump(config))
    run("fit", "guess.yaml", *SMALL)
    assert Path("runs/guess/0/checkpoints/last.ckpt").is_file()


def test_4_questions_and_passages_of_ones_own_are_files(capsys):
    questions = [
        {"question": f"Where was {name} born?", "answers": [text.split()[5].strip(".")]} for name, text in FOUND
    ]
    Path("questions.jsonl").write_text("\n".join(map(json.dumps, questions)))
    Path("corpus.jsonl").write_text("\n".join(json.dumps({"title": name, "text": text}) for name, text in FOUND))
    files = ("questions", "questions"), ("val_questions", "questions"), ("corpus", "corpus")
    given = [f"--data.{key}={name}.jsonl" for key, name in files] + ["--data.objectives=1"]
    run("play", "qa", *given, "--split=train")
    assert "born?" in capsys.readouterr().out
    run("fit", "qa", *given, *SMALL)
    assert Path("runs/qa/0/checkpoints/last.ckpt").is_file()


def test_5_an_export_loads_by_the_code_of_its_card():
    run("export", "webshop", "--output=exported")
    (code,) = re.findall(r"```python\n(.*?)```", Path("exported/README.md").read_text(), re.DOTALL)
    names: dict = {}
    exec(compile(code.replace("FOLDER", "exported"), "README.md", "exec"), names)
    ids = torch.tensor([names["tokenizer"].encode("search page")])
    with torch.no_grad():
        assert torch.isfinite(names["model"](ids).logits).all()


def test_6_memory_modes_are_compared_on_the_same_tasks():
    run(
        "evaluate", "webshop", "--model.policy=exported", "--memory=mem1,none", "--tasks=2", "--output=compared",
        "--trainer.logger=false", "--trainer.accelerator=cpu", "--data.max_turns=4",
    )  # fmt: skip
    rows = list(csv.DictReader(Path("compared/results.csv").read_text().splitlines()))
    assert {"mem1", "none"} <= {row["memory"] for row in rows}
    assert all(float(row["peak_tokens"]) > 0 for row in rows if row["memory"] in ("mem1", "none"))
