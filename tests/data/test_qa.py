"""The data module of questions: sources, schedules, the stream, and its place on the command line."""

import json
from itertools import islice
from pathlib import Path

import pytest
import yaml

from lightning_mem1.callbacks import MetricsCallback
from lightning_mem1.cli import fit
from lightning_mem1.data.qa import QAData
from lightning_mem1.engine.local.engine import EngineSettings
from lightning_mem1.environments.qa.encyclopedia.world import EncyclopediaSettings
from lightning_mem1.environments.qa.retrieval.web import KEY
from lightning_mem1.environments.qa.tasks import EncyclopediaTasks, ask, turn_budget
from lightning_mem1.environments.qa.web_env import WebEnv
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import Objective

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "qa"
SMALL = {"encyclopedia": EncyclopediaSettings(300, seed=3), "seed": 0, "num_val_tasks": 4}


def numbers(data, steps):
    return [[len(task.objectives) for task in batch.tasks] for batch in islice(iter(data.train_dataloader()), steps)]


def test_a_task_is_its_questions_with_their_ids_and_a_budget_of_turns():
    source = EncyclopediaTasks(3, 300, (1,), objectives=2)
    task = source.task("val", 1)
    first, second = task.objectives
    assert task.prompt == f"1 {first.question}\n2 {second.question}"
    assert (task.id, task.max_turns, len(task.data["questions"])) == ("qa/val/2/1", 7, 2)
    assert source.task("val", 1) == task


def test_questions_are_written_as_a_published_checkpoint_knows_them():
    objectives = [Objective("who wrote A?"), Objective("where is B")]
    assert ask(objectives, "release") == "Answer the following questions: who wrote A?; where is B?"


def test_the_budget_grows_with_the_objectives():
    assert [turn_budget(k) for k in (1, 2, 4, 8)] == [6, 7, 13, 25]


def test_a_curriculum_raises_the_number_of_objectives_by_rl_step():
    data = QAData(objectives={1: 1, 3: 2}, tasks_per_step=2, **SMALL)
    assert numbers(data, 4) == [[1, 1], [1, 1], [2, 2], [2, 2]]
    assert {len(task.objectives) for batch in data.val_dataloader() for task in batch.tasks} == {2}


def test_a_list_takes_turns():
    assert numbers(QAData(objectives=[1, 2, 4], tasks_per_step=3, **SMALL), 2) == [[1, 2, 4]] * 2


def test_with_a_list_every_index_below_the_size_is_a_task():
    source = EncyclopediaTasks(3, 300, (1,), objectives=[1, 3])
    assert source.size("val") == source.sized("val", 3) < source.sized("val", 1)
    assert [len(source.task("val", source.size("val") - n).objectives) for n in (1, 2)] in ([1, 3], [3, 1])


def test_a_resumed_stream_goes_on_with_the_same_tasks():
    def ids(data, steps):
        return [[task.id for task in batch.tasks] for batch in islice(iter(data.train_dataloader()), steps)]

    settings = {"objectives": {1: 1, 3: 2}, "tasks_per_step": 3, **SMALL}
    whole, resumed = ids(QAData(**settings), 5), QAData(**settings)
    resumed.load_state_dict({"done_rl_steps": 2})
    assert ids(resumed, 3) == whole[2:]


def test_files_of_questions_bring_their_own_passages(tmp_path):
    paragraphs = [{"title": "Ulm", "text": "A town on the Danube."}]
    rows = [
        {"id": n, "question": f"where is Ulm {n}?", "answers": ["Danube"], "paragraphs": paragraphs} for n in range(40)
    ]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    data = QAData(str(path), index=str(tmp_path / "index"), objectives=2, seed=0)
    data.setup("fit")
    env = data.source.env(data.source.task("train", 0))
    assert env.step("search[where is ulm]").information == "1 Ulm: A town on the Danube."
    assert (tmp_path / "index" / "passages.json").is_file()
    assert data.baselines() == {}


def test_the_scripted_researcher_is_the_baseline_of_the_encyclopedia():
    assert QAData(hops=[1], **SMALL).baselines()["researcher"] > 1.8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"corpus": "c.jsonl"}, "belong to data.questions, got none"),
        ({"retriever": "google"}, "expected bm25, dense, web or an address, got 'google'"),
        ({"top_k": 0}, "data.top_k too small"),
        ({"turns_per_task": 0}, "data.turns_per_task too small"),
        (
            {"retriever": "web", "index": "i"},
            "data.index would not be searched: expected data.retriever bm25 or dense, got",
        ),
        (
            {"retriever": "http://127.0.0.1:9/retrieve", "questions": "q.jsonl", "corpus": "c.jsonl"},
            "data.corpus would not be searched: .*, got http://127.0.0.1:9/retrieve, which .*; drop data.corpus",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        QAData(**settings)


def test_metrics_of_questions_are_logged_in_training_and_validation(make_module, fit):
    engine = EngineSettings(num_slots=8, max_context_tokens=512)
    module = make_module(engine=engine, rollout=RolloutSettings(max_new_tokens=6, prompt="brief", format="qa"))
    data = QAData(tasks_per_step=2, group_size=2, num_rl_steps=1, turns_per_task=2, **SMALL)
    trainer = fit(module, data, MetricsCallback())
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    for prefix in ("rollout", "val"):
        for name in ("em", "f1", "em_mean", "f1_mean", "answered", "searches", "exact_format", "turns"):
            assert metrics[f"{prefix}/{name}"] == (2.0 if name == "turns" else 0.0), name  # a random policy
    assert metrics["val/baseline_researcher"] > 0
    assert metrics["val/seconds_per_episode"] > 0


def test_the_command_line_keeps_the_settings_of_questions_apart_from_those_of_the_shop(tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"data": {"class_path": "QAData"}}))
    assert fit_module(path, "--print_config", "--data.objectives={1: 1, 9: 2}", "--data.web.mode=replay") == 0
    shown = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]
    assert shown["turns_per_task"] is None and "max_turns" not in shown
    assert {int(step): k for step, k in shown["objectives"].items()} == {1: 1, 9: 2}
    assert shown["web"]["mode"] == "replay"


def test_a_misspelled_setting_of_questions_is_answered_with_the_nearest_one(tmp_path, capsys):
    path = tmp_path / "c.yaml"
    content = {"data": {"class_path": "QAData", "init_args": {"objectivs": 2}}}
    path.write_text(yaml.safe_dump(content))
    assert fit_module(path) == 1
    assert "objectives" in capsys.readouterr().err


def fit_module(path, *arguments):
    return fit.main([str(path), *arguments])


SHORT = ["--data.tasks_per_step=2", "--data.group_size=2", "--data.num_rl_steps=1", "--data.num_val_tasks=2"]
SHORT += ["--model.rollout.max_new_tokens=16", "--data.turns_per_task=3", "--trainer.logger=false"]


@pytest.mark.parametrize("real", [False, True], ids=["encyclopedia", "real"])
def test_the_experiment_trains_on_either_data(real, tmp_path, monkeypatch, capsys):
    if real and not REAL.exists():
        pytest.skip("the real questions are not beside the checkout")
    monkeypatch.chdir(tmp_path)
    more = [f"--data.questions={REAL / 'hotpotqa.jsonl.gz'}", f"--data.corpus={REAL / 'corpus.jsonl.gz'}"]
    assert fit.main([str(ROOT / "experiments/qa.yaml"), *SHORT, *(more if real else [])]) == 0
    assert "step    1/1  reward" in capsys.readouterr().out


def test_the_web_experiment_runs_against_a_loopback_server(library, tmp_path, monkeypatch, capsys):
    import threading

    from lightning_mem1.environments.qa.retrieval.server import server

    serving = server(library)
    threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(KEY, "any")
    address = f"--data.web.endpoint=http://127.0.0.1:{serving.server_port}/search"
    try:
        assert fit.main([str(ROOT / "experiments/web_qa.yaml"), *SHORT, address]) == 0
        assert "step    1/1  reward" in capsys.readouterr().out
    finally:
        serving.shutdown()
        serving.server_close()


def test_the_web_takes_the_place_of_a_corpus(monkeypatch):
    monkeypatch.setenv(KEY, "any")
    data = QAData(retriever="web", **SMALL)
    data.setup("fit")
    assert isinstance(data.source.env(data.source.task("val", 0)), WebEnv)


def test_a_missing_key_is_told_before_anything_is_played(monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    with pytest.raises(ValueError, match="no key"):
        QAData(retriever="web", **SMALL).setup("fit")


def test_topics_ask_of_the_generated_encyclopedia_only(tmp_path):
    task = QAData(objectives=1, hops=[1], wording="topic", **SMALL).make_source().task("val", 0)
    assert task.prompt.endswith("?") and task.prompt.split()[1].lower() not in ("who", "what", "which", "where", "in")
    with pytest.raises(ValueError, match=r"expected one of question, topic, got 'title'; set data\.wording"):
        QAData(wording="title")
    with pytest.raises(ValueError, match="belongs to the generated encyclopedia, got 'topic'; drop it"):
        QAData(questions=str(tmp_path / "questions.jsonl"), wording="topic")
