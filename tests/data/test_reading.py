"""The data module of long documents: sources, settings that do not fit together, and a training that uses it."""

import json
from itertools import islice
from pathlib import Path

import pytest
import yaml

from lightning_mem1.cli import fit
from lightning_mem1.data.reading import ReadingData
from lightning_mem1.environments.reading.file_tasks import FileTasks
from lightning_mem1.environments.reading.tasks import ReadingTasks

ROOT = Path(__file__).parents[2]
SMALL = {"seed": 0, "num_val_tasks": 4, "tasks_per_step": 3}


def test_generated_documents_are_as_the_settings_say():
    data = ReadingData(kinds=["needle"], length=[40, 80], part=20, **SMALL)
    tasks = [task for batch in islice(iter(data.train_dataloader()), 10) for task in batch.tasks]
    assert {task.data["kind"] for task in tasks} == {"needle"}
    assert {task.data["length"] for task in tasks} == {40, 80}
    assert isinstance(data.source, ReadingTasks) and data.files() == []
    assert data.baselines() == {"reader": 1.0}


def test_files_make_documents_and_are_named_for_the_hashes(tmp_path):
    path = tmp_path / "asked.jsonl"
    rows = [{"question": f"Who is {n}?", "answer": "Odo", "context": f"{n} is Odo."} for n in range(30)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    data = ReadingData(questions=str(path), **SMALL)
    assert isinstance(data.source, FileTasks) and data.files() == [str(path)]
    assert sum(map(data.source.size, ("train", "val", "test"))) == 30 and data.baselines() == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"questions": []}, "data.questions is empty: expected at least 1 file"),
        ({"val_questions": "a.jsonl"}, "belong to data.questions, got none"),
        ({"questions": "a.jsonl", "kinds": ["needle"]}, "data.kinds belongs to generated documents"),
        ({"part": 0}, "data.part"),
    ],
)
def test_settings_that_do_not_fit_together_are_one_line(settings, message):
    with pytest.raises(ValueError, match=message):
        ReadingData(**settings)


def test_a_file_that_is_not_there_is_named_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = [str(ROOT / "experiments/reading.yaml"), "--model.policy=bundled", "--trainer.logger=false"]
    assert fit.main([*given, "--data.kinds=null", "--data.questions=none.jsonl"]) == 1
    assert "no such data: expected a file, got 'none.jsonl'" in capsys.readouterr().err


def test_the_experiment_trains_a_step(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((ROOT / "experiments/reading.yaml").read_text())
    config["model"]["policy"] = "bundled"
    config["data"]["init_args"] |= {"length": 120, "part": 40, "tasks_per_step": 2, "group_size": 2, "num_val_tasks": 2}
    Path("short.yaml").write_text(yaml.safe_dump(config))
    assert fit.main(["short.yaml", "--data.num_rl_steps=1", "--trainer.logger=false"]) == 0
    out = capsys.readouterr().out
    assert "(reader 1.00)" in out and list(Path("runs/short/0/checkpoints").glob("last.ckpt"))
