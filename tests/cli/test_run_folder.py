"""A run's folder: never written over, held while the run is under way, missed when it is deleted."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Callback

from lightning_mem1.cli import fit as command

ROOT = Path(__file__).parents[2]
QUIET = ["--trainer.logger=false", "--data.num_rl_steps=1"]


def test_the_saved_config_of_a_run_makes_a_new_run_and_leaves_that_one_alone(config, capsys):
    assert command.main([config, *QUIET]) == 0
    kept = {path: path.read_bytes() for path in Path("runs/tiny/0").rglob("*") if path.is_file()}
    assert command.main(["runs/tiny/0/config.yaml", *QUIET, "--seed_everything=7"]) == 0
    assert "runs/tiny/0 holds a run: this one goes to runs/tiny/1\n" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in Path("runs/tiny/0").rglob("*") if path.is_file()} == kept
    assert yaml.safe_load(Path("runs/tiny/1/config.yaml").read_text())["seed_everything"] == 7
    assert sorted(path.name for path in Path("runs").iterdir()) == ["tiny"]


def test_the_saved_config_of_a_run_resumes_it_in_place_when_asked_to(config, capsys):
    assert command.main([config, *QUIET]) == 0
    more = ["--trainer.logger=false", "--data.num_rl_steps=2", "--ckpt_path=last"]
    assert command.main(["runs/tiny/0/config.yaml", *more]) == 0
    assert "step    2/2" in capsys.readouterr().out
    assert [path.name for path in Path("runs/tiny").iterdir()] == ["0"]


def test_a_saved_config_that_names_no_experiment_belongs_to_that_of_its_folder(config, capsys):
    assert command.main([config, *QUIET]) == 0
    saved = Path("runs/tiny/0/config.yaml")
    saved.write_text(yaml.safe_dump({**yaml.safe_load(saved.read_text()), "experiment": None}))
    assert command.main([str(saved), *QUIET]) == 0
    assert sorted(str(path) for path in Path("runs").glob("*/*")) == ["runs/tiny/0", "runs/tiny/1"]


def test_a_folder_that_holds_a_run_is_refused_but_for_that_run(config, capsys, tmp_path):
    given = f"--trainer.default_root_dir={tmp_path / 'here'}"
    assert command.main([config, *QUIET, given]) == 0
    assert command.main([config, *QUIET, given]) == 1
    assert capsys.readouterr().err == (
        f"error: folder holds a run: expected one without checkpoints, got '{tmp_path / 'here'}'; set "
        "--trainer.default_root_dir to another one, or resume that run with --ckpt_path last\n"
    )
    last = tmp_path / "here/checkpoints/last.ckpt"
    assert command.main([config, "--trainer.logger=false", "--data.num_rl_steps=2", given, f"--ckpt_path={last}"]) == 0


HOLDER = """
import sys
from pathlib import Path
from lightning_mem1.io.file_lock import FileLock
FileLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.readline()
"""


def test_a_run_that_is_under_way_is_not_resumed_by_another_process_and_one_that_was_killed_is(config, capsys):
    assert command.main([config, *QUIET]) == 0
    words = [sys.executable, "-c", HOLDER, "runs/tiny/0/run.lock"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    more = ["--trainer.logger=false", "--data.num_rl_steps=2", "--ckpt_path=last"]
    with subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        capsys.readouterr()
        assert command.main([config, *more]) == 1
        assert capsys.readouterr().err == (
            f"error: run is under way: expected a folder that no run writes, got 'runs/tiny/0' of process {holder.pid} "
            "of this machine; wait for its end, or leave --ckpt_path out for a new run\n"
        )
        holder.kill()
    assert Path("runs/tiny/0/run.lock").exists()
    assert command.main([config, *more]) == 0
    assert not Path("runs/tiny/0/run.lock").exists()


class Deletes(Callback):
    """Somebody tidies up before the third rl_step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch.rl_step == 3:
            shutil.rmtree("runs")


def test_a_folder_that_is_deleted_under_a_run_is_missed_and_its_config_comes_back(config, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["tiny_tasks"], "Deletes", Deletes, raising=False)
    callbacks = '[{"class_path": "tiny_tasks.Deletes"}]'
    options = ["--trainer.logger=false", "--data.num_rl_steps=4", "--trainer.callbacks", callbacks]
    assert command.main([config, *options]) == 0
    assert capsys.readouterr().err == (
        "the run's folder 'runs/tiny/0' was deleted while the run is under way: it is made again from here; its "
        "transcripts and earlier checkpoints are lost\n"
    )
    assert Path("runs/tiny/0/config.yaml").is_file() and Path("runs/tiny/0/checkpoints/last.ckpt").is_file()


@pytest.mark.parametrize(
    "arguments",
    [["a\x1b[2J.yaml"], ["{config}", "--ckpt_path=\x1b]0;x\x07.ckpt"], ["{config}", "--experiment=a\x9b31m"],
     ["{config}", "--ckpt_path", "\u202egnp.ckpt"]],
)  # fmt: skip
def test_names_that_would_act_on_a_terminal_are_refused_and_shown_harmless(config, capsys, arguments):
    assert command.main([each.replace("{config}", config) for each in arguments]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("error: name with control characters: expected printable ones, got '")
    assert not any(each in out + err for each in "\x1b\x07\x9b\u202e")


def test_a_checkpoint_that_is_found_under_such_a_name_is_refused_too(config, capsys):
    place = Path("runs/tiny/\x1b[2J/checkpoints")
    place.mkdir(parents=True)
    (place / "last.ckpt").write_bytes(b"x")
    assert command.main([config, "--ckpt_path=last", *QUIET]) == 1
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and r"got 'runs/tiny/\x1b[2J/checkpoints/last.ckpt'" in err
