"""Which weights a command uses: said in its first line, asked for where the experiment has a run."""

import os
from pathlib import Path

import pytest
import torch

from lightning_mem1.cli import evaluate, export, fit, play, serve
from lightning_mem1.cli.weights import Asked, Uses, announced, needs_saying

QUIET = "--trainer.logger=false"


def put(path: str, seconds: int, name: str = "last") -> Path:
    """An empty checkpoint of a given age."""
    file = Path(path, "checkpoints", f"{name}.ckpt")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    os.utime(file, (seconds, seconds))
    return file


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Three runs: 0 with a best and a last checkpoint, 1 newer with a last one, 2 of another experiment."""
    monkeypatch.chdir(tmp_path)
    put("runs/qa/0", 10), put("runs/qa/0", 50, "best"), put("runs/qa/1", 20), put("runs/shop/0", 30)


def test_last_and_best_are_those_of_the_run_that_was_written_last(runs):
    assert Asked("last", None, "qa").path() == Path("runs/qa/1/checkpoints/last.ckpt")
    with pytest.raises(FileNotFoundError, match=r"expected 'runs/qa/1/checkpoints/best.ckpt', got only last.ckpt; set"):
        Asked("best", None, "qa").path()
    put("runs/qa/1", 15, "best")
    assert Asked("best", None, "qa").path() == Path("runs/qa/1/checkpoints/best.ckpt")
    assert Asked("last", "runs/qa/0", "other").path() == Path("runs/qa/0/checkpoints/last.ckpt")
    assert Asked("runs/shop/0/checkpoints/last.ckpt", None, "qa").path() == Path("runs/shop/0/checkpoints/last.ckpt")
    assert Asked("none", None, "qa").path() is None and Asked(None, None, "qa").path() is None


def test_a_run_is_named_and_asked_for(runs):
    with pytest.raises(ValueError) as error:
        Asked(None, None, "qa").check_said()
    assert str(error.value) == (
        "which weights: expected --ckpt_path, got none where 'runs/qa/1' is a run of this experiment; give --ckpt_path "
        "last, a file, or none for model.policy as it is"
    )
    Asked("none", None, "qa").check_said()
    Asked(None, None, "new").check_said()


@pytest.mark.parametrize(
    ("arguments", "content", "uses", "said"),
    [
        (["--ckpt_path=last"], "", Uses(plays=True), "with the weights of runs/qa/1/checkpoints/last.ckpt"),
        (
            ["--ckpt_path", "last", "--experiment", "shop"],
            "",
            Uses(),
            "with the weights of runs/shop/0/checkpoints/",
        ),
        ([], "ckpt_path: last\nexperiment: shop", Uses(), "with the weights of runs/shop/0/checkpoints/last.ckpt"),
        ([], "", Uses(default="last"), "with the weights of runs/qa/1/checkpoints/last.ckpt"),
        (["--ckpt_path=none"], "model: {policy: there}", Uses(plays=True), "with model.policy there as it is"),
        (["--model.policy=mine"], "model: {policy: there}", Uses(plays=True), "with model.policy mine as it is"),
        (["--experiment=new"], "", Uses(plays=True), "with model.policy bundled as it is"),
        (["--human"], "", Uses(plays=True), ""),
        ([], "", Uses(), ""),
        ([], "", Uses(plays=True), ""),  # it is asked for, once the settings are read
        (
            ["--ckpt_path=last"],
            "trainer: {default_root_dir: runs/qa/0}",
            Uses(),
            "with the weights of runs/qa/0/",
        ),
    ],
)
def test_the_first_line_names_the_weights(runs, arguments, content, uses, said):
    Path("qa.yaml").write_text(content)
    line, _ = announced(["--config", "qa.yaml", *arguments], "qa.yaml", uses)
    assert line.strip().startswith(said) and bool(line) == bool(said)


def test_names_that_would_act_on_the_terminal_are_not_said(runs, capsys):
    put("runs/qa/\x1b[31mred", 90)
    Path("qa.yaml").write_text('model: {policy: "\\e[2Jhere"}')
    assert announced(["--ckpt_path=last"], "qa.yaml", Uses(plays=True)) == ("", None)
    assert play.main(["qa.yaml", "--ckpt_path=last"]) == 1
    line, _ = announced(["--ckpt_path=none"], "qa.yaml", Uses(plays=True))
    assert "\x1b" not in line + "".join(capsys.readouterr()) and line == " with model.policy \\x1b[2Jhere as it is"


def test_weights_that_the_command_line_names_are_not_asked_for():
    assert needs_saying(["--config", "x.yaml"]) and needs_saying(["--model.lr=1"])
    assert not needs_saying(["--model.policy", "exported"]) and not needs_saying(["--human"])


@pytest.fixture
def trained(config):
    """The small config, after a run of it."""
    assert fit.main([config, QUIET, "--data.num_rl_steps=1"]) == 0
    return config


@pytest.mark.parametrize("main", [evaluate.main, play.main, serve.main])
def test_after_a_training_no_command_plays_the_untrained_policy_by_itself(trained, capsys, main):
    capsys.readouterr()
    assert main([trained]) == 1
    out, err = capsys.readouterr()
    assert out == f"loading {trained} ...\n"
    assert err == (
        "error: which weights: expected --ckpt_path, got none where 'runs/tiny/0' is a run of this experiment; give "
        "--ckpt_path last, best, a file, or none for model.policy as it is\n"
    )


@pytest.mark.parametrize("word", ["last", "best", "runs/tiny/0/checkpoints/best.ckpt", "none"])
def test_every_command_takes_the_same_words(trained, tiny_folder, capsys, word):
    path = f"runs/tiny/0/checkpoints/{word}.ckpt" if word in ("last", "best") else word
    with_weights = f"with model.policy {tiny_folder} as it is" if word == "none" else f"with the weights of {path}"
    first = f"loading {trained} {with_weights} ..."
    capsys.readouterr()
    for main, more in ((evaluate.main, ["--split=val", "--tasks=1", "--page=0", QUIET]), (play.main, ["--index=1"])):
        assert main([trained, f"--ckpt_path={word}", *more]) == 0
        assert capsys.readouterr().out.splitlines()[0] == first
    if word == "none":
        assert export.main([trained, "--output=out", "--ckpt_path=none"]) == 1
        assert capsys.readouterr().err.startswith("error: nothing to export: expected --ckpt_path last, best or a file")
    else:
        assert export.main([trained, "--output=out", f"--ckpt_path={word}"]) == 0
        assert capsys.readouterr().out.splitlines()[0] == first
    assert fit.main([trained, f"--ckpt_path={word}", QUIET, "--data.num_rl_steps=2"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == (f"loading {trained} ..." if word == "none" else first)
    assert Path("runs/tiny/1").exists() == (word != "last")  # the last one alone is resumed in place
    assert ("step    1/2" in out) == (word in ("none", "best") or "best" in word)


def test_what_the_first_line_could_not_read_is_said_in_the_next(trained, capsys):
    named = '--trainer={"default_root_dir": "runs/tiny/0"}'
    moved = Path("runs/tiny").rename("elsewhere")
    capsys.readouterr()
    assert play.main([trained, named.replace("runs/tiny", str(moved)), "--ckpt_path=last"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        f"loading {trained} ...",
        "with the weights of elsewhere/0/checkpoints/last.ckpt",
    ]


def test_best_plays_the_weights_of_the_best_validation(trained):
    best, last = (
        torch.load(f"runs/tiny/0/checkpoints/{name}.ckpt", weights_only=True)["lightning_mem1"]["rl_step"]
        for name in ("best", "last")
    )
    assert (best, last) == (0, 1)
