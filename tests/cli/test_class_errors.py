"""A class of the user's own that cannot be used is reported as what is wrong with it: file, line and reason."""

import sys
from pathlib import Path

import pytest
import yaml

from lightning_mem1.cli import fit
from lightning_mem1.cli.class_errors import import_problem
from lightning_mem1.cli.parser_messages import key_at, wrong_value
from lightning_mem1.data.qa import QAData
from lightning_mem1.data.webshop import WebShopData

SOURCE = """
from lightning_mem1.types import Env, Split, Task

class Wordy:
    def size(self, split: Split) -> int: return 1
    def task(self, split: Split, index: str) -> Task: return None
    def env(self, task: Task) -> Env: return None

class Renamed:
    def size(self, split: Split) -> int: return 1
    def task(self, split: Split, number: int) -> Task: return None
    def env(self, task: Task) -> Env: return None

class Untyped:
    def size(self, split): return 1
    def task(self, split: Split, index: int) -> Task: return None
    def env(self, task: Task) -> Env: return None

class Other:
    def size(self, split: Split) -> int: return 1
    def task(self, split: Split, index: int) -> Task: return None
    def env(self, task: Task) -> str: return ""

class Unknown:
    def size(self, split: "Splitt") -> int: return 1
    def task(self, split: Split, index: int) -> Task: return None
    def env(self, task: Task) -> Env: return None

class Short:
    def size(self, split: Split) -> int: return 1
    def task(self, split: Split, index: int) -> Task: return None
"""


@pytest.fixture
def mine(config, tmp_path, monkeypatch):
    """A folder with modules of the user's own, where Python finds them."""
    files = {"my_source": SOURCE, "my_open": "x = 1\ny = (\n", "my_needs": "import nonesuch_xyz\n", "my_key": "{}[0]\n"}
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield config
    for name in files:
        sys.modules.pop(name, None)


def failure(capsys, config, *options):
    assert fit.main([config, *options, "--trainer.logger=false"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "my_source.Wordyy",
            "module 'my_source' ({folder}/my_source.py) holds no 'Wordyy'; did you mean 'Wordy'?; correct class_path",
        ),
        ("my_sauce.Wordy", "no module 'my_sauce'; did you mean 'my_source'?; correct class_path, or set PYTHONPATH"),
        ("my_open.Wordy", "SyntaxError in '{folder}/my_open.py', line 2: '(' was never closed; correct that file"),
        (
            "my_needs.Wordy",
            "ModuleNotFoundError in '{folder}/my_needs.py', line 1: No module named 'nonesuch_xyz'; correct that file",
        ),
        ("my_key.Wordy", "KeyError in '{folder}/my_key.py', line 1: 0; correct that file"),
    ],
)
@pytest.mark.parametrize("key", ["data", "data.init_args.source"])
def test_a_class_that_cannot_be_imported_is_named_with_file_line_and_reason(mine, capsys, tmp_path, key, name, message):
    said = failure(capsys, mine, f"--{key}.class_path={name}")
    assert said == f"cannot import class '{name}' in the command line: {message.format(folder=tmp_path)}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "Wordy",
            "method 'task' annotates 'index' as str; expected task(split: Literal['train', 'val', 'test'], index",
        ),
        (
            "Renamed",
            "method 'task' takes (self, split, number); expected task(split: Literal['train', 'val', 'test'], ",
        ),
        (
            "Untyped",
            "method 'size' has no annotation for 'split'; expected size(split: Literal['train', 'val', 'test']",
        ),
        ("Other", "method 'env' annotates its result as str; expected env(task: Task) -> Env"),
        (
            "Unknown",
            "method 'size' has an annotation that cannot be read (name 'Splitt' is not defined); expected size",
        ),
        ("Short", "method 'env' is missing; expected env(task: Task) -> Env"),
    ],
)
@pytest.mark.parametrize("form", [".class_path=my_source.{}", "=my_source.{}", '={{"class_path": "my_source.{}"}}'])
def test_a_source_with_a_wrong_method_is_named_with_the_method(mine, capsys, name, message, form):
    said = failure(capsys, mine, f"--data.init_args.source{form.format(name)}")
    assert said.startswith(f"class 'my_source.{name}' in the command line is no TaskSource: {message}")


def test_a_class_of_a_config_is_named_with_its_line(mine, capsys):
    content = yaml.safe_load(Path(mine).read_text())
    content["data"]["init_args"]["source"]["class_path"] = "my_source.Nothing"
    Path(mine).write_text(yaml.safe_dump(content))
    line = next(n for n, text in enumerate(Path(mine).read_text().splitlines(), 1) if "my_source.Nothing" in text)
    assert failure(capsys, mine).startswith(f"cannot import class 'my_source.Nothing' in '{mine}', line {line}: ")


def test_a_class_that_is_no_data_module_and_a_name_without_a_module_are_told_what_is_expected(mine, capsys):
    assert failure(capsys, mine, "--data.class_path=my_source.Wordy") == (
        "class 'my_source.Wordy' in the command line is no TaskDataModule: expected a class derived from "
        "TaskDataModule; change its base, or set class_path to another one"
    )
    assert failure(capsys, mine, "--data.class_path=QADataa") == (
        "unknown class 'QADataa' in the command line: expected QAData, ReadingData, WebShopData, AgentData, "
        "TaskDataModule, or a dotted name such as mymodule.MyData; did you mean 'QAData'?"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--data.num_rl_steps", "xxx"],
            "wrong value for 'data.num_rl_steps' in the command line: expected int or null, got 'xxx'",
        ),
        (
            ["--data=QAData", "--data.objectives", "two"],
            "wrong value for 'data.objectives' in the command line: expected int, list[int] or dict[int, int], "
            "got 'two'",
        ),
        (
            ["--data=QAData", "--data.web.mode", "x"],
            "wrong value for 'data.web.mode' in the command line: expected one of 'live', 'record', 'replay', got 'x'",
        ),
        (
            ["--data=QAData", "--data.web", "x"],
            "wrong value for 'data.web' in the command line: expected a group of settings, {key: value}, got 'x'",
        ),
        (
            ["--data=QAData", "--data.encyclopedia.sead", "1"],
            "unknown key 'data.encyclopedia.sead' in the command line; did you mean 'data.encyclopedia.seed'?",
        ),
        (
            ["--data=QAData", "--data.group_sise", "1"],
            "unknown key 'data.group_sise' in the command line; did you mean 'data.group_size'?",
        ),
        (
            ["--data=QAData", "--data.num_passages", "300"],
            "data.num_passages is now data.encyclopedia.num_passages: rename it in the command line",
        ),
        (
            ["--data=QAData", "--data.world_seed", "1"],
            "data.world_seed is now data.encyclopedia.seed: rename it in the command line",
        ),
        (
            ["--data=WebShopData", "--data.split", "by_product"],
            "data.split is now data.split_rule: rename it in the command line",
        ),
        (
            ["--data.class_path=lightning_mem1.qa_data.QAData"],
            "class 'lightning_mem1.qa_data.QAData' in the command line has moved: expected 'QAData'; set class_path to "
            "it",
        ),
    ],
)
def test_a_wrong_or_moved_setting_of_the_data_is_named(mine, capsys, options, message):
    assert failure(capsys, mine, *options) == message


def test_an_old_config_is_answered_with_the_new_class(mine, capsys):
    Path(mine).write_text("data:\n  class_path: lightning_mem1.datamodule.WebShopData\n")
    assert failure(capsys, mine) == (
        f"class 'lightning_mem1.datamodule.WebShopData' in '{mine}', line 2 has moved: expected 'WebShopData'; set "
        "class_path to it"
    )


@pytest.mark.parametrize(("kind", "own"), [(QAData, "objectives"), (WebShopData, "split_rule")])
def test_a_data_module_shows_its_own_settings_and_those_of_every_stream(mine, capsys, kind, own):
    assert fit.main([mine, f"--data={kind.__name__}", "--print_config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)["data"]
    assert shown["class_path"] == f"lightning_mem1.{kind.__name__}"
    assert {own, "tasks_per_step", "group_size", "num_rl_steps", "num_val_tasks", "val_batch_size", "seed"} <= set(
        shown["init_args"]
    )
    assert "source" not in shown["init_args"]
    assert fit.main([mine, f"--data.help={kind.__name__}"]) == 0
    assert "--data.tasks_per_step" in (said := capsys.readouterr().out) and f"--data.{own}" in said


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "--data.init_args.source.class_path=Guess",
            "unknown class 'Guess' in the command line: expected a dotted name such as mymodule.MyData",
        ),
        (
            "--data.init_args.source={class_path: tiny_tasks.RankedTasks, init_args: {group_sise: 3}}",
            "unknown key 'data.source.group_sise' in ",
        ),
        (
            "--data.init_args.source={class_path: tiny_tasks.RankedTasks, init_args: {group_size: q}}",
            "wrong value for 'data.source.group_size' in the command line: expected int, got 'q'",
        ),
        (
            "--trainer.callbacks=my_source.Nothing",
            "cannot import class 'my_source.Nothing' in the command line: module 'my_source' (",
        ),
        (
            "--trainer.logger.class_path=my_open.X",
            "cannot import class 'my_open.X' in the command line: SyntaxError in '",
        ),
    ],
)
def test_a_class_inside_of_another_or_of_the_trainer_is_named_with_its_key(mine, capsys, option, message):
    assert failure(capsys, mine, option).startswith(message)


def test_settings_of_a_source_without_its_class_are_named(mine, capsys):
    Path(mine).write_text("data: {class_path: TaskDataModule, init_args: {source: {init_args: {x: 5}}}}\n")
    assert failure(capsys, mine) == (
        f"wrong value for 'data.source' in '{mine}', line 1: expected class_path with a TaskSource or null, got "
        "\"{'init_args': {'x': 5}}\""
    )


def test_what_can_be_imported_has_no_problem():
    assert import_problem("lightning_mem1.data.qa.QAData") is None


def test_a_message_is_read_by_its_indentation():
    message = (
        "Parser key \"data\":\n  Subtypes: [<class 'a.Data'>, <class 'NoneType'>]\n  Errors:\n"
        "    - Problem:\n        Parser key \"source\":\n          Subtypes: [<class 'int'>, list[int]]\n"
        "          Given value: x\n  Given value type: dict\n"
    )
    assert wrong_value(message) == ("data.source", "int or list[int]", "'x'")
    assert key_at(message, message.index("Given value type")) == "data"
    assert key_at(message, 0) == "" and wrong_value("something else") is None
