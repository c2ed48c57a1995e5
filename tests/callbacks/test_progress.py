"""What a run shows of itself while it runs: the bar inside an rl_step, and plain lines where there is no terminal."""

import os
import re
import threading
from contextlib import contextmanager

import pytest
from lightning.pytorch.callbacks import TQDMProgressBar
from rich.console import Console

from lightning_mem1.callbacks import MetricsCallback, ProgressCallback
from lightning_mem1.callbacks.step_bar import StepBar
from lightning_mem1.cli import fit as command

STEP = re.compile(r"step +1/1  playing +\S* *(\d+)/6 episodes, (\d+) turns")


@contextmanager
def terminal(monkeypatch):
    """Standard output is a real terminal of 120 columns; its list holds what was written, once it is closed."""
    main, other = os.openpty()
    written, told = [], []
    reader = threading.Thread(target=_read, args=(main, written), daemon=True)
    reader.start()
    with monkeypatch.context() as patch, os.fdopen(other, "w") as screen:
        for name, value in {"TERM": "xterm-256color", "COLUMNS": "120"}.items():
            patch.setenv(name, value)
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            patch.delenv(name, raising=False)
        patch.setattr("sys.stdout", screen)
        yield told
    reader.join()
    told.append(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(written).decode()))


def _read(main, written):
    try:
        while part := os.read(main, 65536):
            written.append(part)
    except OSError:  # the other end is closed
        return


def test_on_a_terminal_a_bar_shows_the_turns_and_then_the_micro_batches_of_an_rl_step(config, monkeypatch):
    options = ["--trainer.logger=false", "--data.num_rl_steps=1", "--model.max_tokens_per_microbatch=1"]
    with terminal(monkeypatch) as written:
        assert command.main([config, "--trainer.enable_progress_bar=true", *options]) == 0
    (told,) = written
    shown = STEP.findall(told)
    assert ("6", "12") in shown, told  # six episodes of two turns
    assert re.search(r"step +1/1  updating +\S* *1/4 micro-batches", told)  # two of the six have an advantage of 0
    assert re.search(r"val +1  playing +\S* *2/2 episodes, 4 turns", told)
    assert "step    1/1  reward 0.500" in told


def test_without_a_terminal_there_is_a_line_now_and_then_and_none_at_once(make_module, make_data, fit, capsys):
    data = {"num_rl_steps": 1, "num_val_tasks": 0}
    fit(make_module(), make_data(**data), MetricsCallback(), ProgressCallback(), enable_progress_bar=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("step    1/1  reward")
    always = ProgressCallback(plain_every_s=0.0)
    fit(make_module(), make_data(**data), MetricsCallback(), always, enable_progress_bar=True)
    lines = capsys.readouterr().out.splitlines()
    assert "step    1/1  playing  6/6 episodes, 12 turns" in lines
    assert "step    1/1  updating  1/1 micro-batches" in lines


def test_a_bar_that_is_not_asked_for_is_not_shown_and_one_of_the_users_own_stays(make_module, make_data, fit, capsys):
    class Own(TQDMProgressBar):
        pass

    def run(*callbacks, **settings):
        module = make_module()
        data = make_data(num_rl_steps=1, num_val_tasks=0)
        fit(module, data, MetricsCallback(), ProgressCallback(plain_every_s=0.0), *callbacks, **settings)
        return capsys.readouterr().out

    assert "playing" not in run(enable_progress_bar=False)
    own = Own()
    assert "playing" not in run(own, enable_progress_bar=True)
    assert own.is_enabled


def test_a_line_that_comes_in_between_stands_above_the_bar_and_the_bar_goes(monkeypatch):
    with terminal(monkeypatch) as written:
        bar = StepBar(Console(), plain_every_s=30.0)
        bar.show("step 1/2  playing", 1, 4, "episodes, 2 turns")
        bar.show("step 1/2  updating", 1, 2, "micro-batches")
        print("MLflow did not take a trace")
        bar.clear()
    (told,) = written
    assert told.index("1/4 episodes, 2 turns") < told.index("1/2 micro-batches") < told.index("MLflow did not take")


def test_the_seconds_between_plain_lines_cannot_be_negative():
    with pytest.raises(ValueError, match=r"plain_every_s too small: expected at least 0, got -1"):
        ProgressCallback(plain_every_s=-1.0)
