"""A number that no float holds is one line with its key, on the command line and in a file."""

from pathlib import Path

import pytest
import yaml

from lightning_mem1.cli import fit as command

DIGITS = "9" * 400


def test_on_the_command_line(config, capsys):
    assert command.main([config, f"--model.loss.state_weight={DIGITS}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "error: model.loss.state_weight too large: expected a number of at most 308 digits, got 999999999999... with "
        "400 in the command line; set model.loss.state_weight"
    )


@pytest.mark.parametrize("sign", ["", "-"])
def test_in_a_file(config, capsys, tmp_path, sign):
    settings = yaml.safe_load(Path(config).read_text())
    settings["model"]["lr"] = int(sign + DIGITS)
    (tmp_path / "huge.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    assert command.main([str(tmp_path / "huge.yaml")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: lr too large: expected a number of at most 308 digits, got ") and "line " in line
