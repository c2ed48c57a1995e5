"""The notebooks run from their first cell to their last, and what is committed of them is light and of no machine."""

import ast
import base64
import importlib.util
import io
import json
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from PIL import Image

import lightning_mem1

MAX_BYTES = 80_000  # of a notebook: what a page of a code host shows at once
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
    assert path.stat().st_size < MAX_BYTES and sum(len(json.dumps(each)) for each in outputs(notebook)) < MAX_BYTES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_begins_with_its_only_installation_and_uses_the_public_api_alone(path):
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [number for number, source in enumerate(code) if "pip install" in source] == [0]
    cells = [source for source in code[1:] if not source.startswith("%%bash")]
    python = "\n".join(line for source in cells for line in source.splitlines() if not line.startswith("%"))
    found = list(ast.walk(ast.parse(python)))
    modules = [each.module for each in found if isinstance(each, ast.ImportFrom)]
    modules += [alias.name for each in found if isinstance(each, ast.Import) for alias in each.names]
    assert [name for name in modules if name.startswith("lightning_mem1.")] == []
    used = {each.attr for each in found if isinstance(each, ast.Attribute) and getattr(each.value, "id", "") == "mem1"}
    assert used and used <= set(lightning_mem1.__all__)


def test_the_notebook_on_memory_modes_shows_each_mode_and_full_alone_grows():
    """Of its table, by horizon: the modes differ from each other, `full` grows, the others keep their size."""
    notebook = nbformat.read(FOLDER / "2_memory_modes_against_horizon.ipynb", as_version=4)
    html = outputs(notebook)[-1].data["text/html"]
    rows = re.findall(r"<th>(full|window|mem1|none)</th>((?:\s*<td>[\d.]+</td>)+)", html)
    longest = {mode: [float(value) for value in re.findall(r"<td>([\d.]+)</td>", cells)[:3]] for mode, cells in rows}
    assert list(longest) == ["full", "window", "mem1", "none"]
    at_the_end = sorted(values[-1] for values in longest.values())
    assert all(right - left > 5 for left, right in pairwise(at_the_end))
    assert longest["full"][0] * 1.5 < longest["full"][2] and longest["mem1"][2] < longest["mem1"][0] * 1.2


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


def test_a_picture_is_kept_with_few_colours_and_no_more_bytes():
    drawn = io.BytesIO()
    picture = Image.radial_gradient("L").convert("RGB")
    picture.save(drawn, "PNG")
    given = base64.b64encode(drawn.getvalue()).decode()
    kept = execute().lighter(given)
    again = Image.open(io.BytesIO(base64.b64decode(kept)))
    assert len(kept) < len(given) and again.size == picture.size
    assert len(again.convert("RGB").getcolors()) <= 48
    assert execute().lighter(kept) == kept  # nothing is left to take away
