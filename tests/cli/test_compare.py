"""The command that compares: every mode alike, once, resumed after a kill, mistakes in one line."""

import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lightning_mem1.cli import compare as command
from lightning_mem1.cli.main import main as mem1
from lightning_mem1.evaluation.comparison.settings import Command, Comparison, Measuring

ROOT = Path(__file__).parents[2]
SET = {"data.num_rl_steps": 1, "data.num_val_tasks": 1}


@pytest.fixture
def settings(config):
    """Two modes, one seed, a step: on tasks that end after two turns."""
    measuring = Measuring(tasks=2, values=[1], key="seed_everything")
    return Comparison("out", Command(config, dict(SET)), measuring, [], ["mem1", "full"], [0])


def rows():
    """The lines of the table."""
    return list(csv.DictReader(Path("out/comparison.csv").read_text().splitlines()))


def here(ran):
    """Runs a command in this process, where Lightning is imported already, and notes it."""

    def start(argv, log):
        ran.append(argv)
        with log.open("a") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            return mem1(argv), 1.0

    return start


def kinds(ran):
    return [(argv[0], next(part for part in argv if part.startswith("--model.memory="))) for argv in ran]


def test_modes_are_trained_and_measured_alike_and_nothing_is_repeated(settings, capsys):
    ran = []
    assert command.compare(settings, "tiny", "mem1 compare tiny", here(ran)) == 0
    assert kinds(ran) == [(kind, f"--model.memory={mode}") for mode in ("mem1", "full") for kind in ("fit", "evaluate")]
    assert [(row["memory"], row["num_trajectories"]) for row in rows()] == [("mem1", "2"), ("full", "2")]
    assert all(float(row["peak_tokens"]) > 0 for row in rows())
    assert "results in out/comparison.md" in capsys.readouterr().out
    again = []
    assert command.compare(settings, "tiny", "mem1 compare tiny", here(again)) == 0
    assert again == [] and "4 stages, 4 of them finished before" in capsys.readouterr().out


def test_a_comparison_that_is_interrupted_resumes_with_the_stage_that_was_running(settings, capsys):
    ran = []

    def interrupted(argv, log):
        if len(ran) == 2:
            raise KeyboardInterrupt
        return here(ran)(argv, log)

    with pytest.raises(KeyboardInterrupt):
        command.compare(settings, "tiny", "mem1 compare tiny", interrupted)
    assert Path("out/comparison.md").exists()  # the first mode is measured
    assert "2 of 4 stages are still missing." in Path("out/comparison.md").read_text()
    rest = []
    assert command.compare(settings, "tiny", "mem1 compare tiny", here(rest)) == 0
    assert kinds(rest) == [("fit", "--model.memory=full"), ("evaluate", "--model.memory=full")]
    assert Path("out/comparison.md").read_text().splitlines()[-1].endswith("| 1 |")  # an attempt that did not finish


def test_more_seeds_and_modes_are_added_to_what_is_there(settings):
    ran = []
    command.compare(settings, "tiny", "", here(ran))
    settings.modes, settings.seeds = [*settings.modes], [0, 1]
    more = []
    command.compare(settings, "tiny", "", here(more))
    assert [argv[0] for argv in more] == ["fit", "evaluate"] * 2
    assert [row["seeds"] for row in rows()] == ["0 1"] * 2


def test_a_folder_of_stages_and_records_alone_is_resumed_elsewhere_and_repeats_nothing_that_is_finished(
    settings, capsys
):
    command.compare(settings, "tiny", "", here([]))
    before = rows()
    published = Path("published")
    for kind, pattern in (("stages", "*.json"), ("evaluate", "**/trajectories.jsonl")):
        for path in Path("out", kind).glob(pattern):
            copied = published / path.relative_to("out")
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copied)
    settings.output, ran = str(published), []
    command.compare(settings, "tiny", "", here(ran))
    assert ran == []
    shutil.copy(published / "comparison.csv", "out/comparison.csv")
    assert rows() == before
    (published / "stages" / "evaluate.full.0.seed_everything-1.json").unlink()
    capsys.readouterr()
    command.compare(settings, "tiny", "", here(ran))
    assert kinds(ran) == [("fit", "--model.memory=full"), ("evaluate", "--model.memory=full")]
    assert "4 stages, 3 of them finished before; 1 are repeated, whose files are gone" in capsys.readouterr().out


def test_a_command_that_fails_is_one_line_with_its_reason_and_its_log(settings, capsys):
    settings.fit.set["model.lr"] = -1.0
    with pytest.raises(
        ValueError, match=r"fit/mem1/0 failed with exit code 1: error: .*lr.*all of it: 'out/stages/fit"
    ):
        command.compare(settings, "tiny", "", here([]))


def failure(capsys, *arguments):
    assert mem1(["compare", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


@pytest.fixture
def written(config):
    content = {"compare": {"output": "out", "fit": {"config": config, "set": SET}, "seeds": [0]}}
    Path("compare.yaml").write_text(yaml.safe_dump(content))
    return content


def test_mistakes_are_one_line_each_before_anything_is_run(written, capsys):
    assert "unknown memory mode: expected one of mem1, full" in failure(capsys, "compare.yaml", "--memory", "mem1,mem2")
    assert "--seeds must be whole numbers" in failure(capsys, "compare.yaml", "--seeds", "a")
    assert "unknown key" in failure(capsys, "compare.yaml", "--compare.taks", "3")
    written["compare"]["fit"]["config"] = "no/such"
    Path("compare.yaml").write_text(yaml.safe_dump(written))
    assert "no such config: expected a YAML file or the name of an experiment" in failure(capsys, "compare.yaml")
    written["compare"]["fit"]["config"] = "warmstart"
    Path("compare.yaml").write_text(yaml.safe_dump(written))
    assert "unknown key 'warmstart'" in failure(capsys, "compare.yaml")
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["compare/qa", "compare/reading", "compare/qa_from_nothing"])
def test_the_comparisons_of_the_package_are_read_and_name_experiments_that_exist(name, capsys):
    assert mem1(["compare", name, "--print_config"]) == 0
    told = yaml.safe_load(capsys.readouterr().out)
    assert told["compare"]["seeds"] == [0, 1, 2]
    opened = command.startup.opened([name], ("compare",))
    assert command._settings(opened.argv, opened.config).modes


@pytest.mark.slow
def test_a_killed_comparison_goes_on_with_the_same_command(written):
    """Killed while a training runs, with the processes it has started: as when a machine goes down."""
    written["compare"] |= {"memory": ["mem1"], "evaluate": {"tasks": 1, "key": "tasks", "values": [1]}}
    Path("compare.yaml").write_text(yaml.safe_dump(written))
    argv = [sys.executable, "-W", "ignore", "-m", "lightning_mem1", "compare", "compare.yaml"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    first = subprocess.Popen(argv, env=env, start_new_session=True)
    until = time.monotonic() + 300
    while not Path("out/stages/fit.mem1.0.log").exists() and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not Path("out/comparison.csv").exists()
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 stages, 0 of them finished before" in done.stdout
    (row,) = rows()
    assert (row["memory"], row["num_trajectories"]) == ("mem1", "1")
