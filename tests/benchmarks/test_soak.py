"""A process that trains for long keeps its size; `benchmarks/soak.py` is the long version."""

import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from soak import soak, table

RL_STEPS, WARM = 30, 10  # the first ten rl_steps open what is opened once


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_open_files_and_threads_stay_flat_and_memory_grows_by_little(tmp_path):
    rows = soak(RL_STEPS, 5, tmp_path)
    assert [row["rl_step"] for row in rows] == [5, 10, 15, 20, 25, 30]
    told = "\n".join(table(rows))
    warm, *later = [row for row in rows if row["rl_step"] >= WARM]
    for row in later:
        assert row["open_files"] <= warm["open_files"] and row["threads"] <= warm["threads"], told
        assert row["rss_mib"] - warm["rss_mib"] < 100, told
