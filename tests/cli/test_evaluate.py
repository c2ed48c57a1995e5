"""The command that measures: rows over memory modes and objectives, on disk, on screen, resumed."""

import csv
import json
import re
from pathlib import Path

import pytest
import yaml

from lightning_mem1.cli import evaluate, fit
from tiny_played import CountedTasks

QUIET = "--trainer.logger=false"
COUNTED = ["--data.init_args.source.class_path=tiny_played.CountedTasks", "--split=val", "--model.engine.num_slots=1"]


@pytest.fixture
def counted():
    """Nothing played yet, nobody interrupts."""
    CountedTasks.ended.clear()
    CountedTasks.interrupted_after = None
    yield CountedTasks
    CountedTasks.interrupted_after = None


@pytest.fixture
def questions(config):
    """The small config, asking questions of a small encyclopedia."""
    content = yaml.safe_load(Path(config).read_text())
    content["model"]["rollout"]["format"] = "qa"
    settings = {"encyclopedia": {"num_passages": 60}, "hops": [1], "objectives": 2}
    content["data"] = {"class_path": "QAData", "init_args": settings}
    Path(config).write_text(yaml.safe_dump(content))
    return config


def failure(capsys, *arguments: str) -> str:
    """Run, expect a failure, return its one line."""
    assert evaluate.main([*arguments, QUIET]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


def results(folder: str = "out") -> dict:
    return json.loads(Path(folder, "results.json").read_text())


def timeless(folder: str) -> dict:
    """Results without what a clock said."""
    found = results(folder)
    for row in found["rows"]:
        del row["measures"]["seconds"]
    return found


def pages(folder: str) -> list[dict]:
    """What the page of a folder holds, without what a clock said."""
    data = re.search(r'id="data">(.*?)</script>', Path(folder, "page.html").read_text())[1]
    return [{**each, "seconds": 0.0} for each in json.loads(data)["episodes"]]


def test_a_table_holds_the_means_of_the_trajectories_on_disk(config, counted, capsys):
    assert evaluate.main([config, *COUNTED, "--output=out", "--memory=mem1,full,summary", QUIET]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = [json.loads(line) for line in Path("out/trajectories.jsonl").read_text().splitlines()]
    modes = ("mem1", "full", "summary")
    played = [(line["memory"], line["index"]) for line in lines]  # in one engine, the longest contexts first
    assert played[0][0] == "full" and sorted(played) == sorted((m, i) for m in modes for i in range(6))
    mem1, full, summary = results()["rows"]
    # six tasks, paid 0, 0.1 ... 0.5, two turns each
    assert mem1["measures"]["reward"]["mean"] == pytest.approx(0.25)
    assert mem1["measures"]["turns"] == {"mean": 2.0, "low": 2.0, "high": 2.0}
    assert mem1["by_turn"]["trajectories"] == [6.0, 6.0]
    assert mem1["by_turn"]["context_tokens"][1] + 6 == mem1["measures"]["peak_tokens"]["mean"]  # every turn writes 6
    assert mem1["stops"] == {"done": 6, "max_turns": 0, "context": 0, "error": 0}
    # the second turn, or the memory before it, which is 6 as well: prompt, turn, reply, and here the opening too
    assert summary["measures"]["peak_tokens"]["mean"] == mem1["measures"]["peak_tokens"]["mean"] + 1
    assert summary["measures"]["turns"]["mean"] == 2.0 and len(summary["by_turn"]["internal_state_tokens"]) == 1
    assert summary["measures"]["dependency"]["mean"] > mem1["measures"]["dependency"]["mean"]
    for row in (mem1, full, summary):
        for name, interval in row["measures"].items():
            numbers = [line["measures"][name] for line in lines if line["memory"] == row["memory"]]
            assert interval["mean"] == pytest.approx(sum(numbers) / 6)
    assert "em" not in mem1["measures"]  # nobody said what a right answer would be
    reward = mem1["measures"]["reward"]
    assert f"{reward['mean']:.3f} [{reward['low']:.3f}, {reward['high']:.3f}]" in out
    assert re.search(r"reward of oracle +1\.000", out)
    rows = list(csv.DictReader(Path("out/results.csv").read_text().splitlines()))
    assert [row["memory"] for row in rows] == [*modes, "baseline rule", "baseline oracle"]
    assert float(rows[0]["reward_low"]) == reward["low"] and rows[0]["stop_done"] == "6"
    assert [float(row["reward"]) for row in rows[3:]] == [0.25, 1.0]


def test_the_same_mode_with_other_settings_is_another_row_of_the_same_folder(config, counted):
    arguments = [config, *COUNTED, "--tasks=2", "--output=out", QUIET]
    for over in ("mem1", "compaction", "mem1"):
        assert evaluate.main([*arguments, f'--model.memory={{"mode": "recall", "over": "{over}"}}']) == 0
    lines = [json.loads(line) for line in Path("out/trajectories.jsonl").read_text().splitlines()]
    assert [line["memory"] for line in lines] == ["recall"] * 2 + ["recall over compaction"] * 2  # none is played twice
    assert [row["memory"] for row in results()["rows"]] == ["recall"]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_interrupted_run_goes_on_and_ends_as_if_it_never_stopped(config, counted, capsys, temperature):
    options = [*COUNTED, "--memory=mem1,none", f"--temperature={temperature}", QUIET]
    assert evaluate.main([config, *options, "--output=whole"]) == 0
    counted.ended.clear()
    counted.interrupted_after = 8
    assert evaluate.main([config, *options, "--output=parts"]) == 130
    assert capsys.readouterr().err == (
        "interrupted: 8 finished trajectories are kept in 'parts'; the same command continues from there\n"
    )
    assert not Path("parts/results.json").exists()
    counted.interrupted_after = None
    counted.ended.clear()
    assert evaluate.main([config, *options, "--output=parts"]) == 0
    assert counted.ended == [f"ranked/val/{n}" for n in (2, 3, 4, 5)]  # the rest of the second memory mode
    assert timeless("parts") == timeless("whole")
    assert pages("parts") == pages("whole")
    assert [(e["row"], e["task"]) for e in pages("whole")] == [
        (f"{mode}, 1 objective", f"ranked/val/{n}") for mode in ("mem1", "none") for n in range(4)
    ]
    assert "8 trajectories, 4 more left out" in Path("parts/page.html").read_text()


def test_a_line_that_a_kill_cut_short_is_played_again(config, counted):
    arguments = [config, *COUNTED, "--output=out", QUIET]
    assert evaluate.main(arguments) == 0
    whole = timeless("out")
    path = Path("out/trajectories.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    kept = Path("out/episodes.jsonl")
    kept.write_bytes(kept.read_bytes()[:-20])
    counted.ended.clear()
    assert evaluate.main(arguments) == 0
    assert counted.ended == ["ranked/val/5"] and timeless("out") == whole
    assert [each["task"] for each in pages("out")] == [f"ranked/val/{n}" for n in range(3)]  # nobody plays it for show


def test_other_settings_are_refused_unless_begun_anew(config, counted, capsys):
    arguments = [config, *COUNTED, "--output=out"]
    assert evaluate.main([*arguments, QUIET]) == 0
    changed = [*arguments, "--model.rollout.max_new_tokens=5"]
    assert failure(capsys, *changed) == (
        "'out' holds trajectories of other settings: expected model.rollout.max_new_tokens 6, got 5; set --output to "
        "another folder, or give --fresh to start again"
    )
    assert evaluate.main([*changed, "--fresh", QUIET]) == 0
    # training settings, a further memory mode and fewer tasks change no trajectory
    counted.ended.clear()
    more = ["--memory=mem1,none", "--tasks=2", "--model.lr=0.5", "--data.group_size=7"]
    assert evaluate.main([*changed, *more, QUIET]) == 0
    assert counted.ended == ["ranked/val/1", "ranked/val/4"]
    # with six tasks the fourth of mem1 was not among the first, and nobody plays it again for show
    assert [each["task"] for each in pages("out")] == [f"ranked/val/{n}" for n in (1, 1, 4)]
    assert [row["num_trajectories"] for row in results()["rows"]] == [2, 2]


def test_a_temperature_is_a_setting_of_the_trajectories(config, counted, capsys):
    arguments = [config, *COUNTED, "--output=out", QUIET]
    assert evaluate.main(arguments) == 0
    greedy = timeless("out")
    assert failure(capsys, *arguments[:-1], "--temperature=1").startswith("'out' holds trajectories of other settings")
    assert evaluate.main([*arguments, "--temperature=1", "--fresh"]) == 0
    assert timeless("out") != greedy and results()["settings"]["temperature"] == 1.0


def test_without_an_output_each_setting_has_a_folder_of_its_own(config, counted):
    for tokens in (6, 5, 5):
        assert evaluate.main([config, *COUNTED, QUIET, f"--model.rollout.max_new_tokens={tokens}", "--tasks=1"]) == 0
    assert len(list(Path("runs/tiny/evaluate").iterdir())) == 2
    assert len(counted.ended) == 2


def test_every_memory_mode_plays_the_same_questions_at_every_number_of_objectives(questions, capsys):
    arguments = [questions, "--objectives=1,2", "--memory=mem1,full", "--tasks=3", "--published", QUIET]
    assert evaluate.main([*arguments, "--output=out"]) == 0
    out = capsys.readouterr().out
    found = results()
    rows = {(row["memory"], row["objectives"]): row["measures"] for row in found["rows"]}
    assert list(rows) == [("mem1", 1), ("mem1", 2), ("full", 1), ("full", 2)]
    for k in (1, 2):
        assert rows["full", k]["peak_tokens"]["low"] > rows["mem1", k]["peak_tokens"]["high"]
    tasks = [json.loads(line) for line in Path("out/trajectories.jsonl").read_text().splitlines()]
    played = {mode: [line["task"] for line in tasks if line["memory"] == mode] for mode in ("mem1", "full")}
    assert sorted(played["mem1"]) == sorted(played["full"])
    assert {task.rsplit("/", 1)[0] for task in played["mem1"]} == {"qa/test/1", "qa/test/2"}
    assert rows["mem1", 2]["em"]["mean"] == 0.0 and rows["mem1", 2]["turns"]["mean"] == 7.0
    assert [(b["name"], b["objectives"]) for b in found["baselines"]] == [("researcher", 1), ("researcher", 2)]
    paper = next(p for p in found["published"] if p["model"].startswith("MEM1-QA"))
    assert paper == {
        "task": "qa",
        "model": "MEM1-QA 7B, trained on 2",
        "objectives": 2,
        "source": "arXiv 2506.15841, table 1",
        "em": 0.709,
        "f1": 0.838,
        "peak_tokens_without_prompt": 640,
        "seconds": 6.49,
    }
    assert re.search(r"MEM1-QA 7B, trained on 2 +2 +0\.709 +0\.838 +640 +6\.49 +arXiv 2506\.15841, table 1", out)


def test_a_run_in_mlflow_has_a_step_for_each_number_of_objectives_and_the_files(questions, mlflow_uri, capsys):
    from mlflow.tracking import MlflowClient

    arguments = ["--objectives=1,2", "--tasks=1", "--experiment=measured", "--tracking_uri", mlflow_uri]
    assert evaluate.main([questions, *arguments]) == 0
    client = MlflowClient(mlflow_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("measured").experiment_id])
    turns = client.get_metric_history(run.info.run_id, "test/mem1/turns")
    assert [(point.step, point.value) for point in turns] == [(1, 6.0), (2, 7.0)]
    assert run.info.status == "FINISHED" and run.data.params["model.memory"] == "mem1"
    assert run.data.tags["environment.torch"]
    assert run.inputs.dataset_inputs[0].dataset.name.endswith("/test")
    (folder,) = client.list_artifacts(run.info.run_id)
    names = {Path(a.path).name for a in client.list_artifacts(run.info.run_id, folder.path)}
    assert names == {"results.json", "results.csv", "objectives.png", "turns.png", "page.html"}


def test_a_checkpoint_plays_with_its_own_weights(config, counted):
    assert fit.main([config, QUIET]) == 0
    assert evaluate.main([config, QUIET, "--split=val", "--ckpt_path=last", "--output=trained"]) == 0
    assert evaluate.main([config, QUIET, "--split=val", "--ckpt_path=none", "--output=plain"]) == 0
    trained, plain = (results(name)["settings"] for name in ("trained", "plain"))
    assert trained["weights"] != plain["weights"]
    assert {**trained, "weights": ""} == {**plain, "weights": ""}


def test_a_checkpoint_of_another_base_or_adapter_is_one_line(config, tmp_path, capsys):
    from tiny import tiny_policy

    assert fit.main([config, QUIET]) == 0
    capsys.readouterr()
    tiny_policy(seed=5).save(tmp_path / "other")
    said = failure(capsys, config, "--ckpt_path=last", f"--model.policy={tmp_path / 'other'}")
    assert said.startswith("checkpoint belongs to another base policy")
    assert failure(capsys, config, "--ckpt_path=last", "--model.lora.r=8").startswith(
        "adapter does not fit this policy"
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "--memory=mem1,mem2",
            "unknown memory mode: expected one of mem1, full, window, none, summary, amem, compaction, masked, fold,",
        ),
        ("--objectives=1,two", "objectives must be whole numbers from 1, got 'two'; set --objectives, e.g. 1,2,4,8"),
        ("--objectives=0", "objectives must be whole numbers from 1, got '0'"),
        (
            "--objectives=2",
            "--objectives is for tasks of several questions: expected a source like QATasks, got Ranked",
        ),
        ("--tasks=0", "--tasks too small: expected at least 1, got 0; set --tasks"),
        ("--page=-1", "--page too small: expected at least 0, got -1; set --page"),
        ("--split=train", "wrong value for 'split' in the command line: expected one of 'test', 'val', got 'train'"),
        ("--objectivs=2", "unknown key 'objectivs' in the command line; did you mean 'objectives'?"),
        ("--model.lrr=3", "unknown key 'model.lrr' in the command line; did you mean 'model.lr'?"),
        ("--ckpt_path=nothing.ckpt", "no such checkpoint: expected a file, got 'nothing.ckpt'; set --ckpt_path"),
        (
            "--data.init_args.source.class_path=tiny_played.EmptySplits",
            "no test tasks: expected at least 1 from EmptySplits, got 0; give it more data or choose another --split",
        ),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_folder(config, capsys, option, message):
    assert failure(capsys, config, option).startswith(message)
    assert not Path("runs").exists()


def test_more_objectives_than_there_are_questions_are_one_line(questions, capsys):
    said = failure(capsys, questions, "--objectives=1,500")
    assert said.startswith("no test tasks of 500 objectives: expected at least 1 from EncyclopediaTasks, got 0")


def test_a_line_that_nobody_can_read_is_named(config, counted, capsys):
    assert evaluate.main([config, *COUNTED, "--output=out", "--tasks=2", QUIET]) == 0
    path = Path("out/trajectories.jsonl")
    path.write_text("[]\n" + path.read_text())
    said = failure(capsys, config, *COUNTED, "--output=out", "--tasks=2")
    assert said.startswith("unreadable line 1 in 'out/trajectories.jsonl'")
    Path("out/settings.json").write_text("[")
    said = failure(capsys, config, *COUNTED, "--output=out", "--tasks=2")
    assert said.startswith("unreadable 'out/settings.json': expected settings that this package wrote; set --output")
