"""The script that measures a GPU runs on a CPU with tiny sizes, so that it is not tried out on a card."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_every_arm_in_turn_runs_and_is_written_as_soon_as_it_is_measured(tmp_path):
    found = tmp_path / "gpu.json"
    command = [sys.executable, str(SCRIPT), "--shapes", "tiny", "--sections", "capture,compile,lora", "--bases", "none"]
    subprocess.run([*command, "--folder", str(tmp_path), "--output", str(found)], check=True, timeout=600)
    runs = json.loads(found.read_text())["runs"]
    assert [each["arm"] for section in runs.values() for each in section] == [
        "decode step, draw",
        "training pass, layers",
        "training pass, LoRA",
        "decode step, LoRA",
    ]
    assert all(each["of_first"] for section in runs.values() for each in section)
