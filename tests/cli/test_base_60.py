"""``1:30`` is 90 in YAML, and nobody who writes it as a number means that."""

from pathlib import Path

import pytest
import yaml

from lightning_mem1.cli import fit, warmstart
from lightning_mem1.cli.base_60 import check


def failure(capsys, *arguments, main=fit.main):
    assert main(list(arguments)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


def with_line(config, section, line):
    text = Path(config).read_text()
    Path(config).write_text(text.replace(f"{section}:\n", f"{section}:\n  {line}\n", 1))
    return next(n for n, each in enumerate(Path(config).read_text().splitlines(), 1) if each.strip() == line)


@pytest.mark.parametrize("line", ["lr: 1:30", "lr: '1:30'", "lr: 1:30.5"])
def test_a_number_with_colons_in_a_config_is_named_with_its_line(config, capsys, line):
    number = with_line(config, "model", line)
    text = yaml.compose(f"{line}\n").value[0][1].value
    assert failure(capsys, config, "--trainer.logger=false") == (
        f"wrong value for 'model.lr' in '{config}', line {number}: expected a number in plain digits, got {text}, "
        "which YAML reads in base 60; write it without colons, or in quotes where a text is meant"
    )


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("--model.lr=1:30", "model.lr"),
        ("--model.optim={weight_decay: 1:30}", "model.optim.weight_decay"),
        ("--data.init_args.num_rl_steps=1:30", "data.num_rl_steps"),
        ("--trainer.callbacks=[{class_path: lightning_mem1.callbacks.RLCheckpoint, init_args: {num_kept: 1:30}}]", ""),
    ],
)
def test_a_number_with_colons_in_an_option_is_named(config, capsys, option, key):
    said = failure(capsys, config, option, "--trainer.logger=false")
    assert said.startswith(
        f"wrong value for '{key or 'trainer.callbacks.num_kept'}' in the command line: expected a number"
    )


def test_a_time_is_a_text_where_a_text_is_wanted(config, capsys):
    assert fit.main([config, "--trainer.max_time=12:00:00:00", "--print_config"]) == 0
    with_line(config, "trainer", "max_time: '12:00:00:00'")
    quiet = ["--trainer.logger=false", "--data.num_rl_steps=1", "--data.num_val_tasks=0"]
    assert fit.main([config, *quiet]) == 0
    capsys.readouterr()
    Path(config).write_text(Path(config).read_text().replace("'12:00:00:00'", "12:00:00:00"))
    assert failure(capsys, config, *quiet).startswith("wrong value for 'trainer.max_time' in '")


def test_a_warm_start_refuses_it_too(tmp_path, capsys):
    path = tmp_path / "warm.yaml"
    path.write_text("warmstart:\n  output: out\n  seed: 1:30\n")
    said = failure(capsys, str(path), main=warmstart.main)
    assert said.startswith(f"wrong value for 'warmstart.seed' in '{path}', line 3: expected a number in plain digits")


@pytest.mark.parametrize("value", ["90", "http://127.0.0.1:8000", "a:30", "2020-01-01", "1:75", "{a: 'b:1'}", "[1, 2]"])
def test_what_is_no_number_in_base_60_is_left_alone(value):
    check({}, None, [("model.lr", value)])
