"""Whatever a file of the user's own does, the one line says what, in which file and in which line."""

import sys

import pytest

from lightning_mem1.cli import errors, fit
from lightning_mem1.io import own_code

TASKS = """
from lightning_mem1.types import Env, Split, Task

class Tasks:
    def __init__(self, n: int = 1):
        {init}
    def size(self, split: Split) -> int:
        {size}
    def task(self, split: Split, index: int) -> Task:
        return None
    def env(self, task: Task) -> Env:
        return None
"""
UNPRINTABLE = "class E(Exception):\n    def __str__(self): raise RuntimeError('no')\nraise E()\n"


@pytest.fixture
def own(config, tmp_path, monkeypatch):
    """Writes a module of the user's own and runs a training that names a class of it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(text, key="data.init_args.source.class_path", name="Tasks"):
        (tmp_path / "theirs.py").write_text(text)
        return fit.main([config, f"--{key}=theirs.{name}", "--trainer.logger=false"])

    yield run
    sys.modules.pop("theirs", None)


def line(capsys):
    (said,) = capsys.readouterr().err.splitlines()
    return said


@pytest.mark.parametrize("left", ["sys.exit('no licence')", "sys.exit()", "sys.exit(0)", "exit(3)"])
@pytest.mark.parametrize("key", ["data.init_args.source.class_path", "data", "trainer.callbacks", "model.algorithm"])
def test_a_module_that_ends_the_program_when_it_is_imported_is_named(own, capsys, tmp_path, left, key):
    assert own(f"import sys\n{left}\n", key) == 1
    said = line(capsys)
    assert said.startswith("error: ") and "SystemExit" in said and f"('{tmp_path}/theirs.py', line 2)" in said


@pytest.mark.parametrize(
    ("init", "size", "number"),
    [("raise SystemExit('quit')", "return 1", 6), ("pass", "raise SystemExit('quit')", 8)],
)
def test_a_class_that_ends_the_program_is_named(own, capsys, tmp_path, init, size, number):
    assert own(TASKS.format(init=init, size=size)) == 1
    assert line(capsys) == (
        "error: a file ended the program instead of being used: SystemExit: quit "
        f"('{tmp_path}/theirs.py', line {number}); take sys.exit out of it"
    )


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("raise KeyError('boom')", "KeyError: 'boom'"),
        ("raise ValueError('bad\\ncatalogue')", "ValueError: bad catalogue"),
        ("int('x')", "ValueError: invalid literal for int() with base 10: 'x'"),
        ("raise GeneratorExit('x')", "GeneratorExit: x"),
    ],
)
def test_an_error_of_a_class_is_named_with_file_and_line(own, capsys, tmp_path, raised, said):
    assert own(TASKS.format(init=raised, size="return 1")) == 1
    assert line(capsys) == f"error: {said} ('{tmp_path}/theirs.py', line 6); correct that file"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (UNPRINTABLE, "E in '{folder}/theirs.py', line 3: (its message cannot be printed); correct that file"),
        ("def f(): return f()\nf()\n", "RecursionError in '{folder}/theirs.py', line 1: maximum recursion depth"),
        (b"x = '\\x00'\n".decode("unicode_escape"), "SyntaxError in the file of module 'theirs': source code"),
        ("class Tasks:\npass\n", "IndentationError in '{folder}/theirs.py', line 2: expected an indented block"),
        ("Tasks = 5\n", "class 'theirs.Tasks' in the command line is no TaskSource: expected a class, got a int;"),
    ],
)
def test_a_module_that_cannot_be_used_is_named(own, capsys, tmp_path, text, said):
    assert own(text) == 1
    assert said.format(folder=tmp_path) in line(capsys)


def test_a_member_that_is_no_method_and_one_of_a_class_with_a_constructor_are_named(own, capsys):
    assert own(TASKS.format(init="pass", size="return 1").replace("-> Env", "-> str")) == 1
    assert "is no TaskSource: method 'env' annotates its result as str; expected env(task: Task) -> Env" in line(capsys)
    sys.modules.pop("theirs")
    assert own("class Tasks:\n    size = task = env = 5\n") == 1
    assert "is no TaskSource: method 'env' is no method; expected env(task: Task) -> Env" in line(capsys)


def test_a_parser_that_leaves_still_leaves():
    with pytest.raises(SystemExit):
        errors.run(lambda argv: own_code_leaves_in_a_library())


def own_code_leaves_in_a_library():
    import argparse

    argparse.ArgumentParser().parse_args(["--help"])


def test_the_users_line_is_told_apart_from_that_of_a_library():
    try:
        int("x")
    except ValueError as error:
        assert own_code.raised_by_user(error) and own_code.place(error)[0] == __file__
    try:
        __import__("json").loads("{")
    except ValueError as error:
        assert not own_code.raised_by_user(error) and own_code.place(error)[0] == __file__
    assert own_code.place(ValueError("never raised")) is None
