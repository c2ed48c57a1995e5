"""The notebooks run from their first cell to their last, and what is committed of them is light and of no machine."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MACHINE = re.compile(r"/tmp/|/work/|/home/|/root/|/Users/|site-packages|Traceback|\bWarning\b")


def execute():
    """The script that runs them, as a module."""
    spec = importlib.util.spec_from_file_location("execute_notebooks", FOLDER / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outputs(notebook) -> list:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def texts(notebook) -> str:
    shown = [output.get("text", "") or str(dict(output.get("data", {}))) for output in outputs(notebook)]
    return re.sub(r"'image/png': '[^']*'", "", "\n".join(shown))


def pictures(notebook) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_as_much_as_was_committed(path, tmp_path):
    again, committed = execute().executed(path, tmp_path), nbformat.read(path, as_version=4)
    assert (len(outputs(again)), pictures(again)) == (len(outputs(committed)), pictures(committed))
    assert not MACHINE.search(texts(again))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed_was_run_in_order_and_is_light(path):
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert outputs(notebook) and all(output.output_type != "error" for output in outputs(notebook))
    assert not MACHINE.search(texts(notebook)) and not any(cell.metadata for cell in notebook.cells)
    assert path.stat().st_size < 300_000


def test_there_are_six_and_the_readme_names_each_of_them():
    named = re.findall(r"\]\((\w+\.ipynb)\)", (FOLDER / "README.md").read_text())
    assert sorted(named) == [path.name for path in NOTEBOOKS] and len(named) == 6


def test_what_is_printed_is_one_piece_and_what_libraries_say_is_left_out():
    output = nbformat.v4.new_output
    cell = nbformat.v4.new_code_cell("x", execution_count=1, metadata={"execution": {"start": "now"}})
    said = output("stream", name="stderr", text="loading")
    cell.outputs = [output("stream", text="a\n"), said, output("stream", text="b\n"), output("execute_result")]
    (cell,) = execute().stripped(nbformat.v4.new_notebook(cells=[cell])).cells
    assert [each.get("text", each.output_type) for each in cell.outputs] == ["a\nb\n", "execute_result"]
    assert cell.metadata == {}
