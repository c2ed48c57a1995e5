"""Run the notebooks and keep their outputs: ``python notebooks/execute.py [NAME ...]``; without names, all of them.

Each runs in an empty folder beside a copy of the experiments, so that nothing of this machine is in it and nothing is
left behind. What would differ from run to run without meaning anything is taken out before it is written back.
"""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).resolve().parent
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
INSTALLS = "%pip install"  # how the first cell begins: what runs here is installed already
NUM_COLORS = 48  # of a picture: lines and letters need no more, and a page of them stays light
BOLD = re.compile(r"\x1b\[[\d;]*m")  # and other styles of a terminal
QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TQDM_DISABLE": "1"}


def executed(path: Path, folder: Path) -> Any:
    """Run a notebook from its first cell to its last.

    Args:
        path: The notebook; the file stays as it is.
        folder: An empty folder to run in.

    Returns:
        The notebook with its new outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    shutil.copytree(FOLDER.parent / "experiments", folder / "experiments")
    here = folder / "notebooks"
    here.mkdir()
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where the command is
    notebook = nbformat.read(path, as_version=4)
    sources = [cell.source for cell in notebook.cells]
    for cell in notebook.cells:
        if INSTALLS in cell.source:
            cell.source = "pass"
    resources = {"metadata": {"path": str(here)}}
    NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=resources).execute()
    for cell, source in zip(notebook.cells, sources, strict=True):
        cell.source = source
    return stripped(notebook)


def stripped(notebook: Any) -> Any:
    """The notebook without times, versions and what libraries said about themselves on stderr."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = joined([each for each in cell.outputs if each.get("name") != "stderr"])
            for output in cell.outputs:
                if output.output_type == "stream":
                    output.text = BOLD.sub("", output.text)
            for output in cell.outputs:
                output.pop("metadata", None)
                if output.output_type in ("display_data", "execute_result"):
                    output.metadata = {}
                    if "image/png" in output.data:
                        output.data["image/png"] = lighter(output.data["image/png"])
    return notebook


def lighter(picture: str) -> str:
    """A PNG (base64) with a palette of few colours, a third of its bytes; as it was where that is smaller."""
    written = io.BytesIO()
    given = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    given.quantize(NUM_COLORS, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
    smaller = base64.b64encode(written.getvalue()).decode()
    return min(smaller, picture, key=len)


def joined(outputs: list[Any]) -> list[Any]:
    """The outputs with what was printed in one piece: how a kernel cuts it up is a matter of time."""
    whole: list[Any] = []
    for output in outputs:
        if whole and output.output_type == whole[-1].output_type == "stream":
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


def main(names: list[str]) -> None:
    """Execute notebooks in place; names may be shortened."""
    chosen = [path for path in NOTEBOOKS if not names or any(name in path.name for name in names)]
    if not chosen:
        raise SystemExit(f"no such notebook: expected some of {', '.join(p.stem for p in NOTEBOOKS)}, got {names}")
    for path in chosen:
        started = time.perf_counter()
        with TemporaryDirectory() as folder:
            notebook = executed(path, Path(folder))
        nbformat.write(notebook, path)
        print(f"{path.name}: {time.perf_counter() - started:.0f} s, {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
