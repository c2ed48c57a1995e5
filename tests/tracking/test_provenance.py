"""What a run was made with: real files, a real checkout, a real store."""

import hashlib
import subprocess

from lightning.pytorch.loggers import MLFlowLogger
from mlflow.tracking import MlflowClient

from lightning_mem1.callbacks import ProvenanceCallback
from lightning_mem1.data.qa import QAData
from lightning_mem1.data.webshop import WebShopData
from lightning_mem1.tracking.run_metadata import environment, file_digests, git, task_digest
from tiny_tasks import RankedTasks


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(tmp_path):
    def run(*words: str) -> str:
        names = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *names, *words], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert git(tmp_path) == {}
    run("init", "-q")
    (tmp_path / "code.py").write_text("x = 1\n")
    (tmp_path / "inside").mkdir()
    run("add", "code.py")
    run("commit", "-qm", "first")
    assert git(tmp_path) == {"commit": run("rev-parse", "HEAD"), "dirty": "false"}
    (tmp_path / "code.py").write_text("x = 2\n")
    assert git(tmp_path)["dirty"] == "true"
    assert git(tmp_path / "inside") == {}  # a package installed inside somebody else's checkout


def test_the_environment_names_versions_and_the_machine_in_words():
    import torch

    told = environment()
    assert told["torch"] == torch.__version__ and told["cpu_threads"] == str(torch.get_num_threads())
    assert all(isinstance(value, str) and value for value in told.values())


def test_files_are_known_by_their_content_and_a_folder_by_its_files(tmp_path):
    (tmp_path / "goals.json").write_bytes(b"[]")
    (tmp_path / "saved").mkdir()
    expected = {str(tmp_path / "goals.json"): hashlib.sha256(b"[]").hexdigest()[:16]}
    assert file_digests([str(tmp_path)]) == expected == file_digests([str(tmp_path / "goals.json")])
    assert file_digests(["hub:hotpotqa:distractor:train"]) == {}


def test_tasks_are_known_by_what_is_asked():
    class Reworded(RankedTasks):
        def task(self, split, index):
            from dataclasses import replace

            return replace(super().task(split, index), prompt="count down")

    same = task_digest(RankedTasks(), "train", range(3))
    assert same == task_digest(RankedTasks(), "train", range(3)) and len(same) == 16
    others = [task_digest(RankedTasks(), "val", range(3)), task_digest(RankedTasks(), "train", range(4))]
    assert same not in [*others, task_digest(Reworded(), "train", range(3))]


def test_data_modules_name_the_files_that_their_tasks_come_from():
    assert WebShopData().files() == [] and WebShopData(catalogue="shop").files() == ["shop"]
    data = QAData(questions=["a.jsonl", "b.jsonl"], val_questions="c.jsonl", corpus="d.jsonl")
    assert data.files() == ["a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl"] and QAData().files() == []


def test_a_run_keeps_commit_environment_and_data_sets(mlflow_uri, make_module, make_data, fit):
    logger = MLFlowLogger("provenance", tracking_uri=mlflow_uri)
    fit(make_module(), make_data(num_rl_steps=1), ProvenanceCallback(), logger=logger)
    run = MlflowClient(mlflow_uri).get_run(logger.run_id)
    told = git()
    assert run.data.tags["environment.torch"] == environment()["torch"]
    assert (run.data.tags.get("mlflow.source.git.commit"), run.data.tags.get("git.dirty")) == (
        told.get("commit"),
        told.get("dirty"),
    )
    found = {each.dataset.name: each for each in run.inputs.dataset_inputs}
    assert set(found) == {"RankedTasks/train", "RankedTasks/val"}
    train = found["RankedTasks/train"]
    assert train.dataset.digest == task_digest(RankedTasks(), "train", range(10))
    assert train.dataset.source == "10 tasks" and train.tags[0].value == "training"
