"""Help: two screens that agree with the real parser, and the full list behind them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from lightning_mem1.cli import completion, full_help, help_pages
from lightning_mem1.cli.commands import COMMANDS
from lightning_mem1.cli.lightning_cli import flat, known_keys
from lightning_mem1.cli.main import main

PAGES = help_pages.PAGES
MISSING = object()


@pytest.fixture(scope="module")
def parsers():
    return {name: make() for name, make in completion.PARSERS.items()}


def defaults(parser) -> dict:
    """All settings, dotted, without `init_args`."""
    given = flat(parser.get_defaults(skip_validation=True).as_dict())
    return {key.replace(".init_args", ""): value for key, value in given.items()}


def data_defaults() -> dict:
    """Of the settings of all kinds of data; where two kinds disagree the default is a pair."""
    found: dict = {}
    for kind in full_help.DATA:
        parser = ArgumentParser()
        parser.add_class_arguments(kind, "data")
        for key, value in defaults(parser).items():
            found[key] = value if found.get(key, value) == value else (found[key], value)
    return found


def test_there_is_a_page_for_every_command_with_a_config_and_no_other(parsers):
    assert sorted(PAGES) == sorted(parsers) == sorted(name for name, command in COMMANDS.items() if command.keys)


@pytest.mark.parametrize("command", PAGES)
def test_a_page_names_settings_that_exist_with_the_defaults_that_they_have(command, parsers):
    real = defaults(parsers[command]) | data_defaults()
    page = PAGES[command]
    names = [name for group in page.settings.values() for name in group]
    assert len(names) == len(set(names)) and set(page.defaults) <= set(names)
    shown = {name: page.defaults.get(name, help_pages.SETTINGS[name][0]) for name in names}
    assert {name: real.get(name, MISSING) for name in names} == shown


@pytest.mark.parametrize("command", PAGES)
def test_a_page_shows_flags_without_a_value(command, parsers):
    options = parsers[command]._option_string_actions
    names = [name for group in PAGES[command].settings.values() for name in group if f"--{name}" in options]
    flags = {name for name in names if options[f"--{name}"].nargs == 0}
    assert flags == set(names) & set(help_pages.FLAGS)


def test_every_setting_of_the_table_is_on_some_page():
    shown = {name for page in PAGES.values() for names in page.settings.values() for name in names}
    assert shown == set(help_pages.SETTINGS)


@pytest.mark.parametrize("command", PAGES)
def test_a_page_fits_two_screens_and_ends_with_three_examples_and_how_to_get_the_rest(command, capsys):
    assert main([command, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == help_pages.page(command).splitlines()
    assert len(lines) <= 70 and max(map(len, lines)) <= 120
    assert lines[0].startswith(f"usage: mem1 {command} CONFIG")
    examples = lines[lines.index("Examples:") + 1 : lines.index("More:") - 1]
    assert len(examples) == 3 and all(line.startswith(f"  mem1 {command} ") for line in examples)
    assert f"  mem1 {command} --help all " in "\n".join(lines)


@pytest.mark.parametrize(
    "line", [example for page in PAGES.values() for example in page.examples if "my.yaml" not in example]
)
def test_the_examples_of_the_pages_are_understood(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command, first, *more = line.split()[1:]
    if first.startswith("--") or first in ("bundled", "exported"):
        assert COMMANDS[command].alone([first, *more]).loads in line
    else:
        assert main([command, first, *more, "--print_config"]) == 0
        assert (f"{command}:" if command in ("warmstart", "compare") else "model:") in capsys.readouterr().out


def test_the_top_level_keys_that_are_checked_early_are_those_of_the_parser(parsers):
    for name, parser in parsers.items():
        keys = {key.partition(".")[0] for key in defaults(parser)}
        assert set(COMMANDS[name].keys) == keys - {"config"}, name


def test_help_all_lists_every_setting_those_of_the_data_too(capsys, parsers):
    assert main(["fit", "--help", "all"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: mem1 fit CONFIG [--KEY VALUE ...]\n")
    listed = set(re.findall(r"^  (?:-c CONFIG, )?--([\w.]+)", out, re.MULTILINE))
    keys = [key for key in known_keys(parsers["fit"]) if not key.endswith(("class_path", "__"))]
    assert len(keys) > 130 and [key for key in keys if key not in listed] == []
    assert "Folder with the official files" in out and "Training questions:" in out


@pytest.mark.parametrize(
    ("part", "some"),
    [
        ("model", ["--model.lr LR", "--model.rollout.temperature", "--model.lora.target_modules", "Memory mode"]),
        ("data", ["--data.catalogue", "--data.questions", "--data.web.mode", "--data.group_size"]),
        ("trainer", ["--trainer.max_epochs MAX_EPOCHS", "--trainer.val_check_interval"]),
    ],
)
def test_a_part_of_the_settings_is_shown_without_a_config(part, some, capsys):
    assert main(["evaluate", f"--{part}.help"]) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in some)
    assert {found for found in re.findall(r"^  --(\w+)", out, re.MULTILINE)} == {part}


def test_the_parts_show_the_defaults_of_the_command(capsys):
    assert main(["fit", "--trainer.help"]) == 0
    found = re.search(r"--trainer.max_epochs MAX_EPOCHS\n.*?default:\s+(\S+)\)", capsys.readouterr().out, re.DOTALL)
    assert found[1] == "-1"  # Lightning's own is null


def test_one_class_of_data_is_asked_for_by_name(capsys):
    assert main(["fit", "--data.help", "QAData"]) == 0
    out = capsys.readouterr().out
    assert "--data.questions QUESTIONS" in out and "catalogue" not in out


def test_the_settings_are_printed_as_yaml_without_a_config(capsys):
    assert main(["fit", "--print_config"]) == 0
    assert "catalogue: null" in capsys.readouterr().out


def test_the_full_list_of_a_warm_start(capsys):
    assert main(["warmstart", "--help", "all"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: mem1 warmstart CONFIG [--KEY VALUE ...]\n")
    assert all(f"--warmstart.{name}" in out for name in ("model.vocab_size", "data.shop.skill", "stages", "optim.lr"))


def test_a_reader_may_leave_before_the_end():
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "ignore", "-m", "lightning_mem1", "fit", "--help", "all"]
    env = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()  # before a pager has read a line
        assert process.stderr.read() == ""
    assert process.returncode == 0
