"""``--model.memory``: a word, settings beside it, and the keys of before, which are answered with the new ones."""

from pathlib import Path

import pytest
import yaml

from lightning_mem1.cli import evaluate, fit, warmstart
from lightning_mem1.cli.evaluate import memory_modes
from lightning_mem1.cli.memory_words import with_mode
from lightning_mem1.context.modes.amem import Amem
from lightning_mem1.context.modes.full import Full
from lightning_mem1.context.modes.mem1 import Mem1
from lightning_mem1.context.modes.window import Window


@pytest.mark.parametrize(
    ("memory", "argv", "expected"),
    [
        ("window", ["--model.memory.window", "3"], ["--model.memory.mode=window", "--model.memory.window", "3"]),
        (None, ["--model.memory.window=3"], ["--model.memory.mode=mem1", "--model.memory.window=3"]),
        ({"mode": "window"}, ["--model.memory.window=3"], ["--model.memory.window=3"]),
        ("full", ["--model.memory.mode=amem", "--model.memory.window=3"], None),
        ("full", ["--model.memory", "my.Own", "--model.memory.size=3"], ["my.Own", "--model.memory.mode=my.Own"]),
        ("full", ["--model.memory={mode: amem}", "--model.memory.window=3"], None),
        ("full", ["--model.lr", "1"], None),
    ],
)
def test_settings_beside_a_word_keep_the_word(tmp_path, memory, argv, expected):
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({"model": {"lr": 1} | ({} if memory is None else {"memory": memory})}))
    found = with_mode(argv, str(path))
    if expected is None:
        assert found == argv
    else:
        assert " ".join(expected) in " ".join(found) and [each for each in found if ".mode=" not in each] == argv


def shown(capsys, *argv: str):
    assert fit.main([*argv, "--print_config"]) == 0
    return yaml.safe_load(capsys.readouterr().out)["model"]["memory"]


def edited(config: str, *keys: str, value) -> str:
    content = yaml.safe_load(Path(config).read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    Path(config).write_text(yaml.safe_dump(content))
    return config


def test_a_config_takes_a_word_a_dotted_name_or_either_with_settings_and_options_add_to_it(config, capsys):
    assert shown(capsys, config) == "mem1"
    assert shown(capsys, config, "--model.memory", "my_file.plan") == "my_file.plan"
    edited(config, "model", "memory", value="window")
    assert shown(capsys, config, "--model.memory.window", "3") == {"mode": "window", "window": 3}
    edited(config, "model", "memory", value={"mode": "my_file.Own", "size": 1})
    assert shown(capsys, config, "--model.memory.window", "3") == {"mode": "my_file.Own", "size": 1, "window": 3}
    assert shown(capsys, config, "--model.memory", "full") == "full"


@pytest.mark.parametrize(
    ("keys", "value", "answer"),
    [
        (("model", "window"), 3, "model.memory.window"),
        (("model", "rollout", "note_embedding"), "x", "model.memory.note_embedding"),
        (("model", "rollout", "wire"), "qa", "model.rollout.format"),
    ],
)
def test_a_key_of_before_is_answered_with_the_one_of_now(config, capsys, keys, value, answer):
    key = ".".join(keys)
    assert fit.main([config, f"--{key}={value}"]) == 1
    assert capsys.readouterr().err == f"error: {key} is now {answer}: rename it in the command line\n"
    edited(config, *keys, value=value)
    number = next(n for n, text in enumerate(Path(config).read_text().splitlines(), 1) if keys[-1] in text)
    assert fit.main([config]) == 1
    assert capsys.readouterr().err == f"error: {key} is now {answer}: rename it in '{config}', line {number}\n"


def test_a_warm_start_takes_memory_and_format_alike(tmp_path, capsys):
    path = tmp_path / "warm.yaml"
    path.write_text("warmstart: {output: x, memory: window, rollout: {wire: qa}}")
    assert warmstart.main([str(path)]) == 1
    assert "warmstart.rollout.wire is now warmstart.rollout.format: rename it in" in capsys.readouterr().err
    path.write_text("warmstart: {output: x, memory: window}")
    assert warmstart.main([str(path), "--warmstart.memory.window", "0"]) == 1
    assert "window too small: expected at least 1, got 0" in capsys.readouterr().err


def test_what_is_wrong_with_a_memory_mode_is_one_line_of_the_command(config, capsys, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_mode.py").write_text("def plan(turns):\n    return turns[\n")
    for command, option in ((fit, "--model.memory=broken_mode.plan"), (evaluate, "--memory=mem1,broken_mode.plan")):
        assert command.main([config, option]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        key = option[2:].partition("=")[0] if command is fit else "--memory"
        assert line.startswith(f"error: cannot import 'broken_mode', which {key} names: SyntaxError: ")
        assert line.endswith("broken_mode.py', line 2); fix that file")
    edited(config, "model", "memory", value=3)
    assert fit.main([config]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: wrong value for 'model.memory' in ") and line.endswith("got '3'")


def test_a_mode_of_a_list_takes_the_settings_that_it_shares_with_the_configured_one():
    assert memory_modes(None, {"mode": "window", "window": 3}) == [Window(3)]
    assert memory_modes("mem1, full,window,amem,mem1", {"mode": "window", "window": 3}) == [
        Mem1(),
        Full(),
        Window(3),
        Amem(3),
    ]
    assert memory_modes("window", "mem1") == [Window(2)]
